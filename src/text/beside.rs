//! What lies beside a `tokenizer.json` and changes its ids: `open_clip_config.json`, as open_clip writes it,
//! and `tokenizer_config.json` with `special_tokens_map.json`, as transformers does.
//!
//! Files of models are not complete without: open_clip cleans captions for SigLIP otherwise than for
//! CLIP, and says so there; transformers takes the padding token from there. What they say and
//! this crate does not follow is refused.

use std::path::Path;

use serde_json::Value;

use super::clean::Cleaning;
use crate::error::{Error, Result};
use crate::json;

/// Name of the file that others lie beside.
const TOKENIZER: &str = "tokenizer.json";

const OPEN_CLIP: &str = "open_clip_config.json";
const CONFIG: &str = "tokenizer_config.json";
const SPECIALS: &str = "special_tokens_map.json";

/// Tokenizers of transformers that pad on the left where nothing says otherwise.
const PADDING_LEFT: [&str; 3] = ["Gemma", "Llama", "Siglip2"];

/// What the files say. `None` where they say nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Beside {
    /// How captions are cleaned.
    pub(super) cleaning: Cleaning,
    /// Whether open_clip reads the file by transformers, or has a tokenizer of its own for the model.
    pub(super) by_transformers: Option<bool>,
    /// The end token that is replaced by 0.
    pub(super) stripped: Option<String>,
    pub(super) pad: Option<String>,
    pub(super) pads_left: Option<bool>,
    pub(super) cuts_left: Option<bool>,
    /// Tokens that are, or are not, to stand before and after a caption.
    pub(super) starts: Option<(bool, String)>,
    pub(super) ends: Option<(bool, String)>,
    /// A class of transformers that lowers the case before the file's own rules.
    pub(super) lowers: Option<String>,
}

impl Beside {
    /// Reads what lies beside `path`; nothing, where that has another name than `tokenizer.json`.
    ///
    /// # Errors
    /// A file that is no json; what is asked for there and not followed here.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let mut found = Self::default();
        if path.file_name().is_none_or(|name| name != TOKENIZER) {
            return Ok(found);
        }
        let of = |name: &str| read(&path.with_file_name(name));
        let (model, config, specials) = (of(OPEN_CLIP)?, of(CONFIG)?, of(SPECIALS)?);
        let token: &dyn Fn(&str) -> Option<String> = &|name| {
            let of = |file: &Value| {
                let token = &file[name];
                token.as_str().or_else(|| token["content"].as_str()).map(str::to_owned)
            };
            config.as_ref().and_then(of).or_else(|| specials.as_ref().and_then(of))
        };
        found.pad = token("pad_token");
        if let Some(config) = &config {
            found.transformers(config, &path.with_file_name(CONFIG).display().to_string(), token)?;
        }
        if let Some(model) = &model {
            found.open_clip(model, &path.with_file_name(OPEN_CLIP).display().to_string(), token)?;
        }
        if found.cleaning == Cleaning::Canonicalize {
            found.lowers = None;
        }
        if let Some(class) = found.lowers.as_ref().filter(|class| *class == "Siglip") {
            let name = path.with_file_name(CONFIG).display().to_string();
            let expected = format!(
                "a tokenizer whose rules are all in {TOKENIZER}, or an {OPEN_CLIP} beside it that says how captions are \
                 cleaned; use the folder of the model that open_clip loads (timm/ViT-B-16-SigLIP)"
            );
            let found = format!("{class}Tokenizer, which takes away punctuation and case before");
            return Err(Error::format(name, expected, found));
        }
        Ok(found)
    }

    fn transformers(
        &mut self,
        config: &Value,
        name: &str,
        token: &dyn Fn(&str) -> Option<String>,
    ) -> Result<()> {
        let side = |field: &str| match config[field].as_str() {
            None => Ok(None),
            Some("left") => Ok(Some(true)),
            Some("right") => Ok(Some(false)),
            Some(other) => Err(Error::format(name, format!("{field} left or right"), format!("{other:?}"))),
        };
        let class = config["tokenizer_class"].as_str().unwrap_or_default();
        let class = class.strip_suffix("Fast").unwrap_or(class);
        let class = class.strip_suffix("Tokenizer").unwrap_or(class);
        self.pads_left = side("padding_side")?.or(PADDING_LEFT.contains(&class).then_some(true));
        self.cuts_left = side("truncation_side")?;
        let placed = |field: &str, token: Option<String>| Some((config[field].as_bool()?, token?));
        self.starts = placed("add_bos_token", token("bos_token"));
        self.ends = placed("add_eos_token", token("eos_token"));
        self.lowers = matches!(class, "Siglip" | "Siglip2").then(|| class.to_owned());
        Ok(())
    }

    fn open_clip(&mut self, model: &Value, name: &str, token: &dyn Fn(&str) -> Option<String>) -> Result<()> {
        let text = &model["model_cfg"]["text_cfg"];
        let refused = |what: &str, value: &Value, followed: &str| {
            Err(Error::format(name, format!("{what} that is followed here: {followed}"), value))
        };
        let is_set = |value: &Value| !matches!(value, Value::Null | Value::Bool(false)) && value != "";
        let by_transformers = text["hf_tokenizer_name"].as_str().is_some_and(|name| !name.is_empty());
        self.by_transformers = Some(by_transformers);
        if is_set(&text["tokenizer_mode"]) {
            return refused("a tokenizer_mode", &text["tokenizer_mode"], "none");
        }
        let kwargs = text["tokenizer_kwargs"].as_object().into_iter().flatten();
        for (kwarg, value) in kwargs.filter(|(_, value)| is_set(value)) {
            match (kwarg.as_str(), value.as_str()) {
                ("clean", Some("lower")) if !by_transformers => {}
                ("clean", Some("whitespace")) if by_transformers => {}
                ("clean", Some("lower")) => self.cleaning = Cleaning::Lower,
                ("clean", Some("canonicalize")) if by_transformers => {
                    self.cleaning = Cleaning::Canonicalize;
                }
                ("clean", _) if by_transformers => {
                    return refused("a way to clean captions", value, "whitespace, lower, canonicalize");
                }
                ("clean", _) => return refused("a way to clean captions", value, "lower"),
                ("strip_sep_token", _) if by_transformers => {
                    self.stripped = Some(token("sep_token").unwrap_or_else(|| "[SEP]".to_owned()));
                }
                _ => {
                    let expected = "tokenizer_kwargs that are followed here: clean, strip_sep_token";
                    return Err(Error::format(name, expected, format!("{kwarg}: {value}")));
                }
            }
        }
        Ok(())
    }
}

/// The json at `path`, where there is one.
fn read(path: &Path) -> Result<Option<Value>> {
    let content = match std::fs::read(path) {
        Ok(content) => content,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io(format!("read {}", path.display()), error)),
    };
    let wrong = |error| Error::format(path.display().to_string(), "json", error);
    json::read(&content).map(Some).map_err(wrong)
}
