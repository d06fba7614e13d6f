//! Lists the libraries that are parts of glibc.
#![forbid(unsafe_code)]

/// SONAMEs of the parts of glibc. They work only with the other parts of the same glibc.
const GLIBC: &[&str] = &[
    "ld-linux",
    "ld64.so",
    "libBrokenLocale.so",
    "libanl.so",
    "libc.so",
    "libdl.so",
    "libm.so",
    "libmvec.so",
    "libnsl.so.1",
    "libpthread.so",
    "libresolv.so",
    "librt.so",
    "libthread_db.so",
    "libutil.so",
];

/// True for a part of glibc.
pub fn is_glibc(soname: &str) -> bool {
    GLIBC.iter().any(|part| soname.starts_with(part))
}
