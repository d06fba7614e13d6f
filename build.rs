//! Generates the slurm-spank bindings from `slurm/spank.h` when the `spank` feature asks for them.
//!
//! Nothing of the headers' release ends up in the plugin: no version number is taken from them, and only
//! functions and items that every release since 20.11 has are allowed through.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "spank")]
    spank();
}

#[cfg(feature = "spank")]
fn spank() {
    use std::path::PathBuf;

    println!("cargo::rerun-if-env-changed=SLURM_INCLUDE_DIR");
    let mut builder = bindgen::Builder::default()
        .header_contents("coracle_spank.h", "#include <slurm/spank.h>\n")
        .allowlist_function("spank_(get_item|getenv|setenv|unsetenv|context|option_register)")
        .allowlist_function("slurm_(error|info|verbose|debug)")
        .allowlist_type("spank_item|spank_context|spank_option|spank_t")
        .default_enum_style(bindgen::EnumVariation::Consts)
        .prepend_enum_name(false)
        .generate_comments(false)
        .layout_tests(true)
        .wrap_unsafe_ops(true);
    if let Some(dir) = std::env::var_os("SLURM_INCLUDE_DIR") {
        builder = builder.clang_arg(format!("-I{}", PathBuf::from(dir).display()));
    }
    let bindings = match builder.generate() {
        Ok(bindings) => bindings,
        Err(cause) => {
            println!(
                "cargo::error=slurm/spank.h cannot be read: {cause}; install libslurm-dev (Slurm's headers) and \
                 libclang-dev, or name the headers' directory in SLURM_INCLUDE_DIR"
            );
            std::process::exit(1);
        }
    };
    let out = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default()).join("spank.rs");
    if let Err(cause) = bindings.write_to_file(&out) {
        println!("cargo::error={}: {cause}", out.display());
    }
}
