//! Decompresses LZO1X (Documentation/staging/lzo.rst), which squashfs may use: no maintained crate with a free license
//! does it.
#![forbid(unsafe_code)]

/// Number of bytes of `out` that were filled; nothing if the stream is damaged, truncated or longer than `out`.
pub fn decompress(stream: &[u8], out: &mut [u8]) -> Option<usize> {
    let mut output = Output { bytes: out, filled: 0 };
    let mut input = Input { rest: stream };
    // Number of literals before: 1 to 3 with the last instruction, 4 for a longer run; 0 for none.
    let mut before = 0;
    // The first byte may be a run of literals with its own encoding.
    if let Some(count) = stream.first()?.checked_sub(17).filter(|count| *count > 0) {
        input.byte()?;
        output.literals(&mut input, count.into())?;
        before = count.min(4);
    }
    loop {
        let instruction = input.byte()?;
        let (number, low) = (usize::from(instruction), usize::from(instruction & 3));
        let (distance, length, trailing) = match instruction {
            0..=15 if before == 0 => {
                let length = input.length(number, 15)? + 3;
                output.literals(&mut input, length)?;
                before = 4;
                continue;
            }
            0..=15 => {
                let near = (usize::from(input.byte()?) << 2) + (number >> 2) + 1;
                if before == 4 { (near + 2048, 3, low) } else { (near, 2, low) }
            }
            16..=31 => {
                let length = input.length(number & 7, 7)? + 2;
                let word = input.word()?;
                let distance = 16384 + ((number & 8) << 11) + (word >> 2);
                if distance == 16384 {
                    return Some(output.filled);
                }
                (distance, length, word & 3)
            }
            32..=63 => {
                let length = input.length(number & 31, 31)? + 2;
                let word = input.word()?;
                ((word >> 2) + 1, length, word & 3)
            }
            64..=127 => {
                let distance = (usize::from(input.byte()?) << 3) + ((number >> 2) & 7) + 1;
                (distance, 3 + ((number >> 5) & 1), low)
            }
            128..=255 => {
                let distance = (usize::from(input.byte()?) << 3) + ((number >> 2) & 7) + 1;
                (distance, 5 + ((number >> 5) & 3), low)
            }
        };
        output.again(distance, length)?;
        output.literals(&mut input, trailing)?;
        before = trailing.try_into().ok()?;
    }
}

struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn word(&mut self) -> Option<usize> {
        Some(usize::from(self.byte()?) | usize::from(self.byte()?) << 8)
    }

    /// Length from the bits of an instruction or, if they are zero, from the bytes after it.
    fn length(&mut self, bits: usize, most: usize) -> Option<usize> {
        if bits != 0 {
            return Some(bits);
        }
        let mut length = most;
        loop {
            match self.byte()? {
                0 => length += 255,
                last => return Some(length + usize::from(last)),
            }
        }
    }
}

struct Output<'a> {
    bytes: &'a mut [u8],
    filled: usize,
}

impl Output<'_> {
    fn literals(&mut self, input: &mut Input<'_>, count: usize) -> Option<()> {
        let end = self.filled.checked_add(count)?;
        self.bytes.get_mut(self.filled..end)?.copy_from_slice(input.take(count)?);
        self.filled = end;
        Some(())
    }

    /// Copies the bytes that are `distance` bytes back; source and target may overlap.
    fn again(&mut self, distance: usize, length: usize) -> Option<()> {
        let from = self.filled.checked_sub(distance)?;
        let end = self.filled.checked_add(length).filter(|end| *end <= self.bytes.len())?;
        for at in 0..end - self.filled {
            self.bytes[self.filled + at] = self.bytes[from + at];
        }
        self.filled = end;
        Some(())
    }
}
