//! Options as users write them, and the request as it travels in an environment.
#![no_main]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use coracle::request::{Bind, Digest, Request, Variable};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let text = OsStr::from_bytes(bytes);
    if let Ok(request) = Request::from_env(text) {
        let again = request.to_env();
        assert_eq!(Request::from_env(OsStr::new(&again)).ok().map(|request| request.to_env()), Some(again));
    }
    let _ = Bind::parse(text, Path::new("/here"));
    let _ = Digest::parse(text);
    let _ = Variable::parse_list(text);
});
