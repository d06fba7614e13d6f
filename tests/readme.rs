//! README's table of options is made from [`OPTIONS`]. `CORACLE_BLESS=1 cargo test --test readme` renews it.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;

use coracle::options::{Argument, Naming, OPTIONS, Spec};

const BEGIN: &str = "<!-- made from src/options.rs: CORACLE_BLESS=1 cargo test --test readme -->\n";
const END: &str = "<!-- end -->\n";

fn row(spec: &Spec) -> String {
    let argument = match spec.argument {
        Argument::Value(value) => format!("={}", value.to_string_lossy()),
        Argument::Maybe(value, _) => format!("[={}]", value.to_string_lossy()),
        Argument::Flag(_) => String::new(),
    };
    // GitHub takes a bar for the end of a cell, even in code.
    let name = format!("{}{argument}", spec.flag(Naming::Container)).replace('|', r"\|");
    format!("| `{name}` | {} |\n", spec.help.to_string_lossy().replace('|', r"\|"))
}

#[test]
fn the_readme_has_every_option_as_the_table_has_it() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = std::fs::read_to_string(&file).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (found, after) = rest.split_once(END).unwrap();
    let rows: String = OPTIONS.iter().map(row).collect();
    let wanted = format!(
        "| option | what it does |\n|---|---|\n\
         | `--container=IMAGE` | Slurm's own option: the image, `step[:ID]` for a container that runs, or `none` |\n{rows}"
    );
    if std::env::var_os("CORACLE_BLESS").is_some() {
        std::fs::write(&file, format!("{before}{BEGIN}{wanted}{END}{after}")).unwrap();
    } else {
        assert_eq!(found, wanted, "README.md is stale; CORACLE_BLESS=1 cargo test --test readme renews it");
    }
}
