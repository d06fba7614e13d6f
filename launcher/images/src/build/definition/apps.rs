//! Makes the apps of %appinstall and similar sections in directories of their own (SCIF, the Scientific Filesystem), as
//! Apptainer does.
#![forbid(unsafe_code)]

use std::fmt::Write;
use std::path::Path;

use coracle::report::Refusal;

use super::files::{self, Origin};
use super::parse::{App, Section, Stage, transfer};
use crate::build::conventions::labels_from_lines;
use crate::build::root::Root;

/// Writes the apps of a stage. Returns their variables if there are apps.
pub fn write(file: &str, stage: &Stage, host: &Origin<'_>, root: &mut Root) -> Result<Option<String>, Refusal> {
    let mut variables = String::from("#!/bin/sh\n");
    for app in &stage.apps {
        one(file, app, host, root)?;
        add_variables(app, &mut variables);
    }
    Ok((!stage.apps.is_empty()).then_some(variables))
}

/// Commands that %appinstall adds to %post.
pub fn install(stage: &Stage) -> String {
    let mut text = String::new();
    for app in &stage.apps {
        let name = &app.name;
        let script = app.sections.get("appinstall").map(|section| section.text.as_str()).unwrap_or_default();
        let _ = write!(text, "\n. /scif/apps/{name}/scif/env/01-base.sh\ncd /scif/apps/{name}\n{script}\ncd /\n");
    }
    text
}

fn one(file: &str, app: &App, host: &Origin<'_>, root: &mut Root) -> Result<(), Refusal> {
    let name = &app.name;
    let top = format!("/scif/apps/{name}");
    for directory in ["bin", "lib", "scif", "scif/env"] {
        root.make_directory(Path::new(&format!("{top}/{directory}")), 0o755)?;
    }
    for directory in ["input", "output"] {
        root.make_directory(Path::new(&format!("/scif/data/{name}/{directory}")), 0o755)?;
    }
    let mut put =
        |path: &str, mode, text: &str| root.write(Path::new(&format!("{top}/scif/{path}")), mode, text.as_bytes());
    put("env/01-base.sh", 0o755, &base(name))?;
    let section = |name: &str| app.sections.get(name).filter(|section| !section.is_empty());
    if let Some(section) = section("appenv") {
        put("env/90-environment.sh", 0o755, &section.text)?;
    }
    for (name, path) in [("apprun", "runscript"), ("appstart", "startscript"), ("apptest", "test")] {
        if let Some(section) = section(name) {
            // The words behind the section's name are the app's name, not arguments of a script.
            put(path, 0o755, &Section { arguments: String::new(), ..section.clone() }.script())?;
        }
    }
    if let Some(section) = section("apphelp") {
        put("runscript.help", 0o644, &section.text)?;
    }
    let mut labels = section("applabels").map(|section| labels_from_lines(&section.text)).unwrap_or_default();
    labels.insert("SCIF_APP_NAME".into(), name.clone());
    put("labels.json", 0o644, &serde_json::json!(labels).to_string())?;
    if let Some(section) = section("appfiles") {
        for (number, line) in (section.line + 1..).zip(section.text.lines()) {
            if let Some(mut transfer) = transfer(file, number, line)? {
                let to = transfer.to.unwrap_or_else(|| transfer.from.clone());
                transfer.to = Some(format!("{top}/{}", to.trim_start_matches('/')));
                files::copy(file, &transfer, host, root)?;
            }
        }
    }
    Ok(())
}

fn base(name: &str) -> String {
    format!(
        "#!/bin/sh\nSCIF_APPNAME={name}\nSCIF_APPROOT=/scif/apps/{name}\nSCIF_APPMETA=/scif/apps/{name}/scif\n\
         SCIF_DATA=/scif/data\nSCIF_APPDATA=/scif/data/{name}\nSCIF_APPINPUT=/scif/data/{name}/input\n\
         SCIF_APPOUTPUT=/scif/data/{name}/output\n\
         export SCIF_APPNAME SCIF_APPROOT SCIF_APPMETA SCIF_DATA SCIF_APPDATA SCIF_APPINPUT SCIF_APPOUTPUT\n"
    )
}

fn add_variables(app: &App, text: &mut String) {
    let name = &app.name;
    let letters: String =
        name.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '_' }).collect();
    let mut put = |what: &str, path: String| {
        let _ = writeln!(text, "SCIF_APP{what}_{letters}={path}\nexport SCIF_APP{what}_{letters}");
    };
    put("DATA", format!("/scif/data/{name}"));
    put("ROOT", format!("/scif/apps/{name}"));
    for (what, path) in [("META", "scif"), ("BIN", "bin"), ("LIB", "lib"), ("LABELS", "scif/labels.json")] {
        put(what, format!("/scif/apps/{name}/{path}"));
    }
    for (what, section, path) in [
        ("ENV", "appenv", "env/90-environment.sh"),
        ("RUN", "apprun", "runscript"),
        ("START", "appstart", "startscript"),
    ] {
        if app.sections.contains_key(section) {
            put(what, format!("/scif/apps/{name}/scif/{path}"));
        }
    }
}
