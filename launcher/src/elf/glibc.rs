//! The libraries that are parts of glibc.
#![forbid(unsafe_code)]

/// Names of the parts of glibc. They work with each other and with no other glibc's.
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

/// True of the parts of glibc.
pub fn is_glibc(soname: &str) -> bool {
    GLIBC.iter().any(|part| soname.starts_with(part))
}
