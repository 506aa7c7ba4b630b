//! Chat templates: Jinja as Hugging Face renders it, with bounded work and output.

use std::borrow::Cow;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, ErrorKind, State};
use regex::{Captures, Regex};
use serde_json::json;

use super::bounded::Bounded;
use super::{jinja, json, tokenizer};
use omr_base::error::{Error, Result, with_causes};
use omr_base::files;
use omr_base::hub::base_model;

/// One part of a message. The images and the frames of videos are passed separately, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// Text as the user wrote it.
    Text(String),
    /// Position of an image.
    Image,
    /// Position of a video.
    Video {
        /// Number of images that are its frames.
        frames: usize,
        /// Frames per second.
        fps: f64,
    },
}

/// A message of a conversation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message {
    /// `system`, `user`, `assistant` or another role that the template supports.
    pub role: String,
    /// Parts in reading order.
    pub content: Vec<Part>,
    /// True for an assistant turn that is not trained.
    pub masked: bool,
}

impl Message {
    /// Creates a message that contains only text.
    pub fn text(role: impl Into<String>, text: impl Into<String>) -> Message {
        Message { role: role.into(), content: vec![Part::Text(text.into())], masked: false }
    }

    /// Converts to the JSON that templates expect: a string if all parts are text and the template does not read the
    /// texts of this role as parts, otherwise a list of parts.
    fn to_json(&self, roles_in_parts: &[&str]) -> serde_json::Value {
        let in_parts = roles_in_parts.contains(&self.role.as_str());
        let content = match self.content.iter().map(Part::text).collect::<Option<String>>() {
            Some(text) if !in_parts => json!(text),
            _ => self.content.iter().map(Part::to_json).collect(),
        };
        json!({"role": self.role, "content": content})
    }
}

impl Part {
    /// Returns the text of a text part.
    pub fn text(&self) -> Option<&str> {
        match self {
            Part::Text(text) => Some(text),
            Part::Image | Part::Video { .. } => None,
        }
    }

    fn to_json(&self) -> serde_json::Value {
        match self {
            Part::Text(text) => json!({"type": "text", "text": text}),
            Part::Image => json!({"type": "image"}),
            Part::Video { .. } => json!({"type": "video"}),
        }
    }
}

/// Bytes that a rendering may write: `OUTPUT_BASE` plus `OUTPUT_FACTOR` times the size of the messages.
const OUTPUT_BASE: usize = 1 << 20;
const OUTPUT_FACTOR: usize = 4;

/// Texts of the messages in probes of a template.
pub(super) const SYSTEM: &str = "Rule5083";
pub(super) const QUESTION: &str = "Question";
pub(super) const ANSWER: &str = "Answer7391";

/// Functions and filters that templates may use, without memory bounds.
static PLAIN: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut env = Environment::new();
    env.add_function("raise_exception", |what: String| -> std::result::Result<Value, minijinja::Error> {
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, what))
    });
    env.add_function("strftime_now", strftime_now);
    env.add_filter("tojson", tojson);
    env.add_function(GENERATION, generation);
    jinja::add_to(&mut env);
    env
});

/// Function that prints the marks of the tags `generation` and `endgeneration`, which mark the text that a model generates
/// (TRL's `assistant_only_loss`).
const GENERATION: &str = "omr_generation";
/// Variable with the two characters that enclose such a text. If it is not defined, the text is not marked.
const ENCLOSING: &str = "omr_generation_marks";

/// Returns the mark that begins (0) or ends (1) a generation block; nothing if the marks are not defined.
fn generation(state: &State, at: usize, kwargs: Kwargs) -> std::result::Result<Value, minijinja::Error> {
    // The caller is an empty block.
    kwargs.get::<Value>("caller")?;
    let marks = state.lookup(ENCLOSING);
    Ok(marks.and_then(|marks| marks.as_str()?.chars().nth(at)).map_or(Value::from(""), Value::from))
}

/// Replaces the tags of generation blocks by empty blocks that print a mark. Whitespace around the tags is unchanged, and
/// the text between them keeps its variables.
fn with_generation(source: &str) -> Cow<'_, str> {
    static TAG: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}").expect("a fixed pattern"));
    TAG.replace_all(source, |tag: &Captures<'_>| {
        let at = u8::from(tag.get(2).is_some());
        format!("{{%{} call {GENERATION}({at}) %}}{{% endcall {}%}}", &tag[1], &tag[3])
    })
}

/// A chat template with the special tokens that it may refer to (`bos_token`, `eos_token`, ...).
#[derive(Clone)]
pub struct ChatTemplate {
    template: Arc<Bounded>,
    source: Arc<str>,
    /// Name of the source, for errors.
    place: String,
    variables: serde_json::Map<String, serde_json::Value>,
    /// Roles whose texts the template reads only as a list of parts.
    roles_in_parts: Vec<&'static str>,
}

impl ChatTemplate {
    /// Loads the template of a model directory: `chat_template.jinja`, otherwise `chat_template.json`, otherwise the
    /// `chat_template` of `tokenizer_config.json`. The names of the special tokens come from `tokenizer_config.json`.
    pub fn load(dir: impl AsRef<Path>) -> Result<ChatTemplate> {
        // The template belongs to the tokenizer.
        let dir = &base_model::holder(dir.as_ref(), tokenizer::FILE)?;
        let config_path = dir.join("tokenizer_config.json");
        let config = files::json::read_if_exists::<serde_json::Map<_, _>>(&config_path)?.map(serde_json::Value::Object);
        let jinja = dir.join("chat_template.jinja");
        let json = dir.join("chat_template.json");
        let (source, place) = if let Some(bytes) = files::if_exists(&jinja, files::read(&jinja))? {
            (String::from_utf8(bytes).map_err(|e| Error::format(&jinja, e.to_string()))?, jinja)
        } else if let Some(value) = files::json::read_if_exists(&json)? {
            (named_template(&value, &json)?, json)
        } else if let Some(value) = config.as_ref().filter(|c| c.get("chat_template").is_some_and(|t| !t.is_null())) {
            (named_template(value, &config_path)?, config_path)
        } else {
            let expected = "chat_template.jinja, chat_template.json or tokenizer_config.json with a chat_template";
            let hint = "a base model has none: copy the one of a chat model of the same family into the directory";
            return Err(Error::input_hint(dir, "no chat template", expected, hint));
        };
        let mut template = ChatTemplate::new(&source, place.display().to_string())?;
        for (key, value) in config.as_ref().and_then(|c| c.as_object()).into_iter().flatten() {
            // A token is either its string or an object with the string as `content`.
            let token = value.as_str().or_else(|| value.get("content").and_then(|c| c.as_str()));
            if let Some(token) = token.filter(|_| key.ends_with("_token")) {
                template.variables.insert(key.clone(), token.into());
            }
        }
        Ok(template)
    }

    /// Compiles a template. `place` names it in errors.
    pub fn new(source: &str, place: impl Into<String>) -> Result<ChatTemplate> {
        let place = place.into();
        let marked = with_generation(source);
        let [begun, ended] = [0, 1].map(|at| marked.matches(&format!("{GENERATION}({at})")).count());
        if begun != ended {
            let found = format!("{begun} tags generation and {ended} tags endgeneration");
            return Err(Error::input(place, found, "one endgeneration for each generation"));
        }
        let template = jinja::without_constant_and(&marked)
            .and_then(|source| Bounded::new(&source, &PLAIN, jinja::printed, 1 << 30));
        let template = template.map_err(|e| failed(&place, &e))?;
        // `transformers` always passes these two, so a template may test `tools is not none`.
        let variables =
            ["tools", "documents"].map(|name| (name.to_owned(), serde_json::Value::Null)).into_iter().collect();
        let (template, source) = (Arc::new(template), source.into());
        Ok(ChatTemplate { template, source, place, variables, roles_in_parts: Vec::new() })
    }

    /// Returns the template with the roles whose texts it reads only as parts: it drops a string, as SmolVLM's does.
    /// Errors if the text of a user or an assistant is dropped in both forms.
    pub(super) fn reading_parts(mut self) -> Result<ChatTemplate> {
        let [system, user, assistant] = [("system", SYSTEM), ("user", QUESTION), ("assistant", ANSWER)]
            .map(|(role, text)| Message::text(role, text));
        let probes = [("user", QUESTION, vec![user.clone()]), ("assistant", ANSWER, vec![user.clone(), assistant])];
        for (role, text, probe) in probes.into_iter().chain([("system", SYSTEM, vec![system, user])]) {
            let shown = |template: &ChatTemplate| {
                template.render_with(&probe, false, &Default::default()).map(|rendered| rendered.contains(text))
            };
            let as_text = shown(&self);
            if matches!(as_text, Ok(true)) {
                continue;
            }
            self.roles_in_parts.push(role);
            if !matches!(shown(&self), Ok(true)) {
                self.roles_in_parts.pop();
                if role == "system" {
                    // Many templates have no system message.
                    continue;
                }
                as_text?;
                let found = format!("a template that drops the text of the {role}'s messages");
                return Err(Error::input(self.place, found, "the text, from a string or from a list of parts"));
            }
        }
        Ok(self)
    }

    /// Returns the template with further variables, such as `enable_thinking`. Errors if it does not read one of them.
    pub fn with_variables(mut self, variables: &serde_json::Map<String, serde_json::Value>) -> Result<ChatTemplate> {
        self.check_variables(variables)?;
        self.variables.extend(variables.clone());
        Ok(self)
    }

    /// Errors if the template does not read one of these variables.
    pub fn check_variables(&self, variables: &serde_json::Map<String, serde_json::Value>) -> Result<()> {
        let Some((name, value)) = variables.iter().find(|(name, _)| !self.source.contains(name.as_str())) else {
            return Ok(());
        };
        let found = format!("{name}={value} in chat_template_kwargs");
        Err(Error::input(&self.place, found, "a variable that this chat template reads"))
    }

    /// Returns a special token by its name in `tokenizer_config.json`, such as `eos_token`.
    pub fn special_token(&self, name: &str) -> Option<&str> {
        self.variables.get(name).and_then(|token| token.as_str())
    }

    /// Returns true if `tokenizer_config.json` gives a role to this special token, such as `bos_token`.
    pub(super) fn names(&self, token: &str) -> bool {
        self.variables.iter().any(|(name, value)| name.ends_with("_token") && value == token)
    }

    /// Returns the source of the template.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Returns true if the template marks the text that a model generates with `{% generation %}`.
    pub fn marks_generation(&self) -> bool {
        matches!(with_generation(&self.source), Cow::Owned(_))
    }

    /// Renders the conversation as one text in which each generation block is between the characters `marks`.
    pub(super) fn render_marked(&self, messages: &[Message], marks: [char; 2]) -> Result<String> {
        let marks = marks.iter().collect::<String>().into();
        self.render_with(messages, false, &[(ENCLOSING.to_owned(), marks)].into_iter().collect())
    }

    /// Renders the conversation as one text. With `add_generation_prompt` it ends with the opening of the assistant's
    /// turn. `variables`, such as `add_vision_id`, are added to the template's variables.
    pub fn render_with(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        variables: &serde_json::Map<String, serde_json::Value>,
    ) -> Result<String> {
        let mut context = self.variables.clone();
        context.extend(variables.iter().map(|(k, v)| (k.clone(), v.clone())));
        context.insert("messages".to_owned(), messages.iter().map(|m| m.to_json(&self.roles_in_parts)).collect());
        context.insert("add_generation_prompt".to_owned(), add_generation_prompt.into());

        let given: usize = messages.iter().flat_map(|m| &m.content).filter_map(Part::text).map(str::len).sum();
        let text = self.template.render(Value::from_serialize(&context), given).map_err(|e| failed(&self.place, &e))?;
        let most = OUTPUT_BASE + OUTPUT_FACTOR * given;
        if text.len() <= most {
            return Ok(text);
        }
        let found = format!("{} bytes of output", text.len());
        Err(Error::input(&self.place, found, format!("at most {most} bytes")))
    }
}

/// Formats the error of a template with its line and cause.
fn failed(place: &str, error: &minijinja::Error) -> Error {
    Error::input(place, with_causes(error), "a chat template that accepts these messages")
}

/// Date of every rendering: the one that the template of Llama 3.1 has. The clock would make the tokens of a row depend on
/// the day.
const TODAY: jiff::civil::Date = jiff::civil::date(2024, 7, 26);

/// Implements `strftime_now(format)` of Hugging Face, at midnight of [`TODAY`].
fn strftime_now(format: String) -> std::result::Result<String, minijinja::Error> {
    jiff::fmt::strtime::format(&format, TODAY.at(0, 0, 0, 0))
        .map_err(|e| minijinja::Error::new(ErrorKind::InvalidOperation, e.to_string()))
}

/// Implements `tojson` of Hugging Face: `json.dumps(value, ensure_ascii=False)` with its keyword arguments.
fn tojson(value: Value, kwargs: Kwargs) -> std::result::Result<Value, minijinja::Error> {
    let invalid = |what: String| minijinja::Error::new(ErrorKind::InvalidOperation, what);
    let indent = kwargs.get::<Option<Value>>("indent")?.map(|v| match (v.as_str(), v.as_usize()) {
        (Some(text), _) => Ok(text.to_owned()),
        (None, Some(n)) if n <= 64 => Ok(" ".repeat(n)),
        _ => Err(invalid(format!("tojson: indent={v}"))),
    });
    let indent = indent.transpose()?;
    let separators = kwargs.get::<Option<Value>>("separators")?.map(|v| {
        let pair: Vec<Value> = v.try_iter()?.collect();
        let [item, key] = &pair[..] else { return Err(invalid("tojson: separators must be a pair".to_owned())) };
        Ok((item.to_string(), key.to_string()))
    });
    let separators = separators.transpose()?;
    let style = json::Style {
        ensure_ascii: kwargs.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        sort_keys: kwargs.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        indent,
        separators,
    };
    kwargs.assert_all_used()?;
    let value = serde_json::to_value(&value).map_err(|e| invalid(format!("tojson: {e}")))?;
    Ok(Value::from_safe_string(json::dumps(&value, &style)))
}

/// Returns the `chat_template` of a JSON file: a string, or the entry named `default` in a list of `{name, template}`.
fn named_template(value: &serde_json::Value, path: &Path) -> Result<String> {
    let template = value.get("chat_template");
    let listed = template.and_then(|t| t.as_array()).into_iter().flatten();
    let default = listed.filter(|t| t.get("name").is_some_and(|n| n == "default")).find_map(|t| t.get("template"));
    let source = template.and_then(|t| t.as_str()).or_else(|| default.and_then(|t| t.as_str()));
    source
        .map(str::to_owned)
        .ok_or_else(|| Error::format(path, "chat_template: expected a string, or a list with one named default"))
}
