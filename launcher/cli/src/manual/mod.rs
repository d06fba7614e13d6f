//! Writes man pages and completions (`coracle manual DIR`), from the command line ([`crate::arguments`]) and the table of
//! options ([`coracle::options`]). Only built with the feature `manual`, for `make manual`.
#![forbid(unsafe_code)]

mod completion;
mod page;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Command;
use clap_complete::{Shell, generate_to};
use clap_mangen::Man;
use coracle::report::{Kind, Refusal};

use crate::arguments;

/// Directory of pages below the output directory, as below $(PREFIX)/share.
const MAN1: &str = "man/man1";
const MAN5: &str = "man/man5/coracle.yaml.5";
const MAN7: &str = "man/man7/coracle-container.7";
const BASH: &str = "bash-completion/completions";
const ZSH: &str = "zsh/site-functions";
/// File for $(SYSCONFDIR); its text says why.
const SLURMS: &str = "bash_completion.d/slurm_coracle";

/// Writes all files below the directory that is named.
pub fn main(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let written = match (arguments.next().map(PathBuf::from), arguments.next()) {
        (Some(directory), None) => write(&directory)
            .map_err(|cause| Refusal::new(Kind::System, directory.display().to_string(), cause.to_string())),
        _ => Err(Refusal::new(Kind::Usage, "manual", "takes one directory")),
    };
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(refusal) => {
            eprintln!("{refusal}");
            ExitCode::FAILURE
        }
    }
}

fn write(directory: &Path) -> io::Result<()> {
    for path in [MAN1, BASH, ZSH] {
        fs::create_dir_all(directory.join(path))?;
    }
    let mut tree = arguments::tree().disable_help_subcommand(true);
    tree.build();
    write_commands(tree, &directory.join(MAN1))?;
    generate_to(Shell::Zsh, &mut arguments::tree(), "coracle", directory.join(ZSH))?;
    // bash-completion looks for a file with the name of the command.
    let made = generate_to(Shell::Bash, &mut arguments::tree(), "coracle", directory.join(BASH))?;
    fs::rename(made, directory.join(BASH).join("coracle"))?;
    for (path, text) in [(MAN5, page::settings()), (MAN7, page::container()), (SLURMS, completion::slurms())] {
        let path = directory.join(path);
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::write(path, text)?;
    }
    Ok(())
}

/// Writes the pages of a command and its subcommands: clap's parts, and those that clap does not know.
///
/// Not [`clap_mangen::generate_to`]: it sets neither source nor manual, so the header and footer of a page would lack
/// both, and the footer would have the name of a subcommand in place of Coracle's version.
fn write_commands(command: Command, directory: &Path) -> io::Result<()> {
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        write_commands(verb.clone(), directory)?;
    }
    let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    let mut text = Vec::new();
    Man::new(command).source(page::SOURCE).manual(page::MANUAL).render(&mut text)?;
    text.extend(page::command(&name).into_bytes());
    fs::write(directory.join(format!("{name}.1")), text)
}
