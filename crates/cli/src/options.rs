//! The options of the library as flags: each group's fields, by their names, with their docs.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches};
use tldr_loader::Result;
use tldr_loader::config::{Config, Images, Selection, Source};
use tldr_loader::image::DecodeOptions;
use tldr_loader::jobs::Wanted;
use tldr_loader::options::{Class, Field, Group};

/// Fields of the group `G` that were given: name by name through groups in it, with their text.
#[derive(Debug, Clone)]
pub struct Flags<G> {
    given: Vec<(Vec<&'static str>, String)>,
    group: std::marker::PhantomData<G>,
}

impl<G> Flags<G> {
    /// The first field that was given, if any: its name and text.
    pub(crate) fn first(&self) -> Option<(&'static str, &str)> {
        self.given.first().and_then(|(path, text)| Some((*path.last()?, text.as_str())))
    }
}

impl Flags<Selection> {
    /// Samples per window, where that was given.
    ///
    /// # Errors
    /// A value that is no number.
    pub(crate) fn window(&self) -> Result<Option<usize>> {
        let mut selection = Selection::default();
        self.apply(&mut selection)?;
        let is_given = self.given.iter().any(|(path, _)| path.last() == Some(&"window"));
        Ok(is_given.then_some(selection.window))
    }
}

impl<G: Group> Flags<G> {
    /// Sets what was given.
    ///
    /// # Errors
    /// A value that its field does not take.
    pub fn apply(&self, group: &mut G) -> Result<()> {
        self.given.iter().try_for_each(|(path, text)| group.set_text(path, text))
    }
}

/// Fields that have no flag: positional, or in files only.
const WITHOUT: [&str; 2] = ["urls", "weight"];

/// Calls `each` with the path of every field that is no group, and the field.
fn walk(
    fields: &'static [Field],
    path: &[&'static str],
    each: &mut dyn FnMut(Vec<&'static str>, &'static Field),
) {
    for field in fields.iter().filter(|field| !WITHOUT.contains(&field.name)) {
        let path = [path, &[field.name]].concat();
        match field.group {
            Some(fields) => walk(fields, &path, each),
            None => each(path, field),
        }
    }
}

/// The flag of a field.
fn flag(field: &'static Field) -> Arg {
    let arg = Arg::new(field.name).long(field.name.replace('_', "-")).help(help(field));
    let arg = if field.python == "bool" {
        // `--rotate` is `--rotate=true`; without the `=` it would take the next word.
        arg.num_args(0..=1).require_equals(true).default_missing_value("true").value_name("BOOL")
    } else {
        arg.value_name(value_name(field)).allow_hyphen_values(true)
    };
    arg.action(ArgAction::Set)
}

impl<G: Group> clap::Args for Flags<G> {
    fn augment_args(command: Command) -> Command {
        let mut flags = vec![];
        walk(G::FIELDS, &[], &mut |_, field| flags.push(flag(field)));
        command.args(flags)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// Those of `Images` that decoding takes: the others have no say where no batch is made.
#[derive(Debug, Clone)]
struct DecodingFlags(Flags<Images>);

impl DecodingFlags {
    fn fields() -> impl Iterator<Item = &'static Field> {
        Images::FIELDS.iter().filter(|field| field.class == Class::Reading)
    }
}

impl clap::Args for DecodingFlags {
    fn augment_args(command: Command) -> Command {
        command.args(Self::fields().map(flag))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for DecodingFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let text = |field: &Field| Some((vec![field.name], matches.get_one::<String>(field.name)?.clone()));
        Ok(Self(Flags { given: Self::fields().filter_map(text).collect(), group: std::marker::PhantomData }))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The doc of a field, without Markdown.
fn help(field: &Field) -> String {
    let text = field.doc.replace('`', "");
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").trim_end_matches('.').to_owned()
}

fn value_name(field: &Field) -> &'static str {
    match field.python {
        "int" => "N",
        "float" => "NUMBER",
        "str | os.PathLike[str]" => "PATH",
        "str" => "TEXT",
        _ => "VALUE",
    }
}

impl<G: Group> FromArgMatches for Flags<G> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut given = vec![];
        walk(G::FIELDS, &[], &mut |path, field| {
            if let Some(text) = matches.get_one::<String>(field.name) {
                given.push((path, text.clone()));
            }
        });
        Ok(Self { given, group: std::marker::PhantomData })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// How samples are read.
#[derive(Debug, clap::Args)]
pub(crate) struct Reading {
    #[command(flatten)]
    source: Flags<Source>,
    #[command(flatten)]
    images: DecodingFlags,
}

impl Reading {
    /// The source, without shards, and how its images are decoded.
    ///
    /// # Errors
    /// A value that is not accepted.
    pub(crate) fn given(&self) -> Result<(Source, DecodeOptions)> {
        let (mut source, mut images) = (Source::default(), Images::default());
        self.source.apply(&mut source)?;
        self.images.0.apply(&mut images)?;
        Ok((source, images.decode()))
    }

    /// Which recording of a ledger is meant; `scorer` is the fingerprint of the captioner that was given.
    ///
    /// # Errors
    /// A value that is not accepted; a table that cannot be opened.
    pub(crate) fn wanted(&self, scorer: Option<u64>, window: Option<usize>) -> Result<Wanted> {
        let (source, decode) = self.given()?;
        Ok(Wanted { window, ..Wanted::read_as(scorer, &source.open()?, &decode) })
    }
}

/// Where shards are and how they are read, of every subcommand that reads some.
#[derive(Debug, clap::Args)]
pub struct Sources {
    /// Shards: paths or URLs with {00000..00331} ranges, globs, folders, or @FILE that lists them; those of --config by
    /// default
    urls: Vec<String>,
    /// TOML file of options, which those given here go before
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    reading: Reading,
}

impl Sources {
    /// The options of the file, if there is one, with the sources that are given.
    ///
    /// # Errors
    /// The file; a value that is not accepted; no shards.
    pub fn config(&self) -> Result<Config> {
        let mut config = self.config.as_ref().map_or(Ok(Config::default()), Config::load)?;
        if !self.urls.is_empty() {
            config.sources = vec![Source::new(self.urls.clone())];
        }
        if config.sources.is_empty() {
            let accepted = "shards, as arguments or as sources of --config FILE";
            return Err(tldr_loader::Error::option("sources", "none", accepted));
        }
        config.sources.iter_mut().try_for_each(|source| self.reading.source.apply(source))?;
        self.reading.images.0.apply(&mut config.images)?;
        Ok(config)
    }

    /// The one source, and how its images are decoded.
    ///
    /// # Errors
    /// As [`config`](Self::config); there are several.
    pub fn one(&self) -> Result<(Source, DecodeOptions)> {
        let Config { mut sources, images, .. } = self.config()?;
        match (sources.pop(), sources.len()) {
            (Some(source), 0) => Ok((source, images.decode())),
            (_, more) => {
                let accepted = "one source: this subcommand reads no mix";
                Err(tldr_loader::Error::option("sources", more + 1, accepted))
            }
        }
    }
}

/// What is kept, of subcommands that read a ledger.
pub(crate) type SelectionFlags = Flags<Selection>;
