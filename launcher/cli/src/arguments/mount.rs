//! Converts `--mount` of Apptainer and docker to the bind that it means.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Accepted form, for help.
pub const FORM: &str = "type=bind,source=SRC,destination=DST[,ro]";

/// Value of `--bind` for a `--mount` such as `type=bind,source=/a,destination=/b,ro`.
pub fn as_bind(text: &OsStr) -> Result<OsString, String> {
    let (mut kind, mut source, mut target, mut size, mut read_only) = (None, None, None, None, false);
    for field in fields(text)? {
        let (key, value) = match field.iter().position(|byte| *byte == b'=') {
            Some(at) => (&field[..at], Some(field[at + 1..].to_vec())),
            None => (field.as_slice(), None),
        };
        let named = String::from_utf8_lossy(key).into_owned();
        let place = match key {
            b"type" => &mut kind,
            b"source" | b"src" => &mut source,
            b"destination" | b"dst" | b"target" => &mut target,
            b"tmpfs-size" => &mut size,
            b"ro" | b"readonly" => {
                read_only = match value.as_deref() {
                    None | Some(b"true" | b"1") => true,
                    Some(b"false" | b"0") => false,
                    Some(_) => return Err(format!("{named} is true or false")),
                };
                continue;
            }
            _ => return Err(format!("{named} is not known here: {FORM} is wanted")),
        };
        let value = value.filter(|value| !value.is_empty()).ok_or_else(|| format!("{named} has no value"))?;
        if place.replace(value).is_some() {
            return Err(format!("{named} is given twice"));
        }
    }
    let target = target.ok_or("destination is missing")?;
    let mut bind = match (kind.as_deref(), source, size) {
        (Some(b"bind"), Some(source), None) => [plain(source), escaped(&target)].join(&b':'),
        (Some(b"bind"), None, None) => return Err("source is missing".into()),
        (Some(b"bind"), _, Some(_)) => return Err("tmpfs-size is for type=tmpfs".into()),
        (Some(b"tmpfs"), None, _) if read_only => return Err("a tmpfs that is only read stays empty".into()),
        (Some(b"tmpfs"), None, size) => {
            let mut bind = [b"tmpfs".to_vec(), escaped(&target)].join(&b':');
            size.into_iter().for_each(|size| bind.extend([b":".to_vec(), size].concat()));
            bind
        }
        (Some(b"tmpfs"), Some(_), _) => return Err("a tmpfs has no source".into()),
        (None, ..) => return Err("type is missing: type=bind is wanted".into()),
        (Some(other), ..) => {
            return Err(format!("type {} is not known here: bind or tmpfs is wanted", String::from_utf8_lossy(other)));
        }
    };
    if read_only {
        bind.extend(b":ro");
    }
    Ok(OsString::from_vec(bind))
}

/// Fields of a line of comma-separated values (RFC 4180): a comma between double quotes is part of a field.
fn fields(text: &OsStr) -> Result<Vec<Vec<u8>>, String> {
    let (mut fields, mut quoted) = (vec![Vec::new()], false);
    let mut bytes = text.as_bytes().iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' if quoted && bytes.peek() == Some(&b'"') => {
                bytes.next();
                fields.last_mut().into_iter().for_each(|field| field.push(b'"'));
            }
            b'"' => quoted = !quoted,
            b',' if !quoted => fields.push(Vec::new()),
            other => fields.last_mut().into_iter().for_each(|field| field.push(other)),
        }
    }
    if quoted { Err("a double quote is not closed".into()) } else { Ok(fields) }
}

/// Source in a form that `--bind` reads as a path, even if it equals one of its keywords.
fn plain(source: Vec<u8>) -> Vec<u8> {
    if [&b"tmpfs"[..], b"none"].contains(&source.as_slice()) { [b"./", &*source].concat() } else { escaped(&source) }
}

fn escaped(path: &[u8]) -> Vec<u8> {
    path.iter().flat_map(|byte| if b"\\:,".contains(byte) { vec![b'\\', *byte] } else { vec![*byte] }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_the_bind_that_it_stands_for() {
        for (mount, bind) in [
            ("type=bind,source=/a,destination=/b", "/a:/b"),
            ("type=bind,src=a,dst=/b,ro", "a:/b:ro"),
            ("readonly,target=/b,source=/a,type=bind", "/a:/b:ro"),
            ("type=bind,source=/a,destination=/b,readonly=true", "/a:/b:ro"),
            ("type=bind,source=/a,destination=/b,ro=false", "/a:/b"),
            (r#"type=bind,"source=/a,b",destination=/c:d"#, r"/a\,b:/c\:d"),
            (r#"type=bind,source=/a""b"",destination=/c"#, r"/ab:/c"),
            (r#"type=bind,"source=/a""b",destination=/c\"#, r#"/a"b:/c\\"#),
            ("type=bind,source=none,destination=/b", "./none:/b"),
            ("type=tmpfs,destination=/b", "tmpfs:/b"),
            ("type=tmpfs,destination=/b,tmpfs-size=64m", "tmpfs:/b:64m"),
        ] {
            assert_eq!(as_bind(OsStr::new(mount)).as_deref(), Ok(OsStr::new(bind)), "{mount}");
        }
    }

    #[test]
    fn a_mount_that_is_none_is_refused() {
        for (mount, why) in [
            ("", " is not known here: type=bind,source=SRC,destination=DST[,ro] is wanted"),
            ("/a:/b", "/a:/b is not known here: type=bind,source=SRC,destination=DST[,ro] is wanted"),
            ("source=/a,destination=/b", "type is missing: type=bind is wanted"),
            ("type=volume,source=a,destination=/b", "type volume is not known here: bind or tmpfs is wanted"),
            ("type=bind,source=/a", "destination is missing"),
            ("type=bind,destination=/a", "source is missing"),
            ("type=bind,source=,destination=/a", "source has no value"),
            ("type=bind,source=/a,src=/b,destination=/a", "src is given twice"),
            ("type=bind,source=/a,destination=/a,ro=maybe", "ro is true or false"),
            (
                "type=bind,source=/a,destination=/a,bind-propagation=shared",
                "bind-propagation is not known here: type=bind,source=SRC,destination=DST[,ro] is wanted",
            ),
            ("type=tmpfs,source=/a,destination=/b", "a tmpfs has no source"),
            ("type=tmpfs,destination=/b,ro", "a tmpfs that is only read stays empty"),
            ("type=bind,source=/a,destination=/a,tmpfs-size=1m", "tmpfs-size is for type=tmpfs"),
            (r#"type=bind,"source=/a,destination=/b"#, "a double quote is not closed"),
        ] {
            assert_eq!(as_bind(OsStr::new(mount)), Err(why.to_owned()), "{mount}");
        }
    }
}
