#!/usr/bin/env python3
"""terminal.py ROWSxCOLS [STEP...] -- COMMAND...: runs COMMAND in a terminal of its own and does the STEPs in order.

    await=TEXT    waits until TEXT has come, after what earlier steps waited for
    send=TEXT     types TEXT; \\n, \\x03 and the like are escapes
    resize=RxC    changes the size of the window, which sends SIGWINCH to who is in the foreground
    file=PATH     waits until there is such a file

Prints what came out of the terminal, and ends with COMMAND's exit status, or 128 and the signal that ended it.
"""
import codecs
import fcntl
import os
import pty
import select
import struct
import sys
import termios
import time

LIMIT = 60  # seconds, far above what any case takes


def size(text):
    rows, columns = text.split('x')
    return struct.pack('HHHH', int(rows), int(columns), 0, 0)


def main():
    window, *rest = sys.argv[1:]
    cut = rest.index('--')
    steps, command = rest[:cut], rest[cut + 1:]
    read_end, write_end = os.pipe()
    child, terminal = pty.fork()
    if child == 0:
        # The window has its size before anybody looks.
        os.read(read_end, 1)
        os.close(read_end)
        os.close(write_end)
        os.execvp(command[0], command)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, size(window))
    os.write(write_end, b'.')
    os.close(read_end)
    os.close(write_end)

    seen, passed, end, over = b'', 0, time.monotonic() + LIMIT, False
    while not over:
        while steps:
            what, text = steps[0].split('=', 1)
            if what == 'await':
                found = seen.find(text.encode(), passed)
                if found < 0:
                    break
                passed = found + len(text.encode())
            elif what == 'file':
                if not os.path.exists(text):
                    break
            elif what == 'send':
                os.write(terminal, codecs.decode(text, 'unicode_escape').encode())
            elif what == 'resize':
                fcntl.ioctl(terminal, termios.TIOCSWINSZ, size(text))
            else:
                sys.exit(f'{steps[0]}: no such step')
            del steps[0]
        if select.select([terminal], [], [], 0.05)[0]:
            try:
                some = os.read(terminal, 65536)
            except OSError:  # EIO: nobody has the other end open any more
                some = b''
            seen += some
            over = not some
        if time.monotonic() > end:
            sys.stdout.buffer.write(seen)
            sys.exit(f'\nterminal: still waiting for {steps[:1] or command}')
    sys.stdout.buffer.write(seen.replace(b'\r\n', b'\n'))
    sys.stdout.flush()
    if steps:
        sys.exit(f'\nterminal: ended before {steps[0]}')
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    sys.exit(status if status >= 0 else 128 - status)


main()
