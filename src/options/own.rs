//! Handles `--container` on releases of Slurm without that option (before 21.08): the plugin registers it, and reads
//! the variables that later releases read themselves. The order of precedence is that of Slurm's own options (opt.c of
//! srun, sbatch and salloc).
#![forbid(unsafe_code)]

use std::ffi::OsString;

/// Place where `--container` was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The command line.
    CommandLine,
    /// A line of a batch script, which sbatch reads before its variables and its command line.
    Script,
}

/// Images given to one command, component by component.
#[derive(Debug, Default)]
pub struct Images {
    command_line: Option<OsString>,
    script: Option<OsString>,
    before: Option<OsString>,
}

/// Images of the component whose options have been read.
#[derive(Debug)]
pub struct OfComponent {
    typed: Option<OsString>,
    other: Option<OsString>,
}

impl Images {
    /// Takes a value of the option. The last one of a place counts.
    pub fn take(&mut self, image: OsString, place: Place) {
        match place {
            Place::CommandLine => self.command_line = Some(image),
            Place::Script => self.script = Some(image),
        }
    }

    /// Ends the options of a component. `variable` is the value of the variable that stands for the option. A component
    /// without any image has that of the one before.
    pub fn component(&mut self, variable: Option<OsString>) -> OfComponent {
        let typed = self.command_line.take();
        let other = variable.or(self.script.take()).or(self.before.take());
        self.script = None;
        self.before = typed.clone().or_else(|| other.clone());
        OfComponent { typed, other }
    }
}

impl From<Option<OsString>> for OfComponent {
    /// Takes the image that Slurm itself has found.
    fn from(image: Option<OsString>) -> Self {
        Self { typed: image, other: None }
    }
}

impl OfComponent {
    /// Returns the image; `own` is the value of a variable of this component only.
    pub fn image(&self, own: Option<OsString>) -> Option<OsString> {
        self.typed.clone().or(own).or_else(|| self.other.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(image: &str) -> Option<OsString> {
        Some(image.into())
    }

    #[test]
    fn command_line_wins_over_variable_and_variable_over_script() {
        let mut images = Images::default();
        images.take("script".into(), Place::Script);
        assert_eq!(images.component(None).image(None), text("script"));

        let mut images = Images::default();
        images.take("script".into(), Place::Script);
        assert_eq!(images.component(text("variable")).image(None), text("variable"));

        let mut images = Images::default();
        images.take("script".into(), Place::Script);
        images.take("first".into(), Place::CommandLine);
        images.take("last".into(), Place::CommandLine);
        assert_eq!(images.component(text("variable")).image(text("own")), text("last"));
    }

    #[test]
    fn nothing_given_is_no_image_and_an_empty_variable_is_a_value() {
        assert_eq!(Images::default().component(None).image(None), None);
        assert_eq!(Images::default().component(text("")).image(None), text(""));
    }

    #[test]
    fn component_without_a_value_has_that_of_the_one_before() {
        let mut images = Images::default();
        images.take("one".into(), Place::CommandLine);
        assert_eq!(images.component(None).image(None), text("one"));
        assert_eq!(images.component(None).image(None), text("one"));
        images.take("two".into(), Place::Script);
        assert_eq!(images.component(None).image(None), text("two"));
        // The variable is read again for each component, as Slurm's other variables are.
        assert_eq!(images.component(text("variable")).image(None), text("variable"));
        assert_eq!(images.component(None).image(None), text("variable"));
    }

    #[test]
    fn variable_of_one_component_is_for_that_one_only() {
        let mut images = Images::default();
        assert_eq!(images.component(text("all")).image(text("own")), text("own"));
        assert_eq!(images.component(None).image(None), text("all"));
    }

    #[test]
    fn line_of_a_script_is_not_kept_behind_a_command_line() {
        let mut images = Images::default();
        images.take("script".into(), Place::Script);
        images.take("typed".into(), Place::CommandLine);
        assert_eq!(images.component(None).image(None), text("typed"));
        assert_eq!(images.component(None).image(None), text("typed"));
    }
}
