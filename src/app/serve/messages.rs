//! Converts the messages of a chat request to the model's prompt.

use serde_json::{Map, Value, json};

use super::errors::{Api, ApiError};
use super::fields::{Fields, short};
use super::text::with_reasoning;
use omr_base::config::ChatTemplateKwargs;
use omr_data::text::{Chat, Message, Part, Special};

/// Field with the variables of the chat template. Templates themselves always come from the model directory.
const KWARGS: &str = "chat_template_kwargs";
/// Maximum number of messages of a conversation.
const MAX_MESSAGES: usize = 4096;

/// A conversation as the chat template receives it.
pub struct Conversation {
    messages: Vec<Message>,
    variables: Map<String, Value>,
    add_generation_prompt: bool,
    continue_final_message: bool,
    /// Field name and URL of each image, in order.
    pub images: Vec<(String, String)>,
}

impl Conversation {
    /// Reads the fields about messages and the template.
    pub fn read(fields: &mut Fields) -> Api<Conversation> {
        let continue_final_message = fields.bool("continue_final_message", false)?;
        let add_generation_prompt = fields.bool("add_generation_prompt", true)?;
        if continue_final_message && add_generation_prompt {
            let expected = "false with continue_final_message";
            return Err(ApiError::field("add_generation_prompt", "true", expected));
        }
        let template = "templates come from the model directory only";
        fields.only(&[("chat_template", Value::Null), ("documents", json!([]))], template)?;
        fields.only(&[("echo", json!(false)), ("add_special_tokens", json!(false))], "not supported for chat")?;
        let variables = match fields.take(KWARGS) {
            Some(kwargs) => ChatTemplateKwargs::read(KWARGS, &kwargs).map_err(ApiError::refused_key)?.variables(),
            None => Map::new(),
        };
        let Some(Value::Array(list)) = fields.take("messages") else {
            return Err(ApiError::field("messages", "no list", "a list of messages"));
        };
        if list.is_empty() || list.len() > MAX_MESSAGES {
            return Err(ApiError::field("messages", list.len(), format!("1 to {MAX_MESSAGES} messages")));
        }
        let mut conversation = Conversation {
            messages: Vec::with_capacity(list.len()),
            variables,
            add_generation_prompt,
            continue_final_message,
            images: Vec::new(),
        };
        let last = list.len() - 1;
        for (i, value) in list.into_iter().enumerate() {
            conversation.add(Fields::new(value, &format!("messages[{i}]"))?, i == last)?;
        }
        if continue_final_message && conversation.messages.last().is_none_or(|last| last.role != "assistant") {
            return Err(ApiError::field("continue_final_message", "true", "a final message of the assistant"));
        }
        Ok(conversation)
    }

    fn add(&mut self, mut fields: Fields, is_last: bool) -> Api<()> {
        let roles = "system, developer, user or assistant";
        let role = fields.string("role")?.unwrap_or_default();
        let role = match role.as_str() {
            "developer" => "system",
            "system" | "user" | "assistant" => &role,
            other => return Err(ApiError::field(fields.name("role"), format!("{other:?}"), roles)),
        };
        let place = fields.name("content");
        let mut content = match fields.take("content") {
            Some(Value::String(text)) => vec![Part::Text(text)],
            Some(Value::Array(parts)) => {
                let part = |(i, part)| self.part(part, &format!("{place}[{i}]"));
                parts.into_iter().enumerate().map(part).collect::<Api<_>>()?
            }
            None if role == "assistant" => Vec::new(),
            other => {
                return Err(ApiError::field(place, short(&other.unwrap_or_default()), "a string or a list of parts"));
            }
        };
        let reasoning = [fields.string("reasoning_content")?, fields.string("reasoning")?].into_iter().flatten().last();
        if let Some(reasoning) = reasoning.filter(|text| !text.is_empty()) {
            let text = content.iter().map(Part::text).collect::<Option<String>>().filter(|_| role == "assistant");
            let text =
                text.ok_or_else(|| ApiError::field(&place, "images or another role", "text of the assistant"))?;
            let is_open = is_last && self.continue_final_message && text.is_empty();
            content = vec![Part::Text(with_reasoning(&reasoning, &text, is_open))];
        }
        let unsupported = [("tool_calls", json!([])), ("annotations", json!([]))];
        fields.only(&unsupported, "tools and annotations are not supported")?;
        // lm-eval gives messages a type.
        fields.only(&[("type", json!("text"))], "messages have no type")?;
        fields.without_effect(&["name", "cache_control"]);
        fields.end()?;
        if content.is_empty() {
            content.push(Part::Text(String::new()));
        }
        self.messages.push(Message { role: role.to_owned(), content, masked: false });
        Ok(())
    }

    fn part(&mut self, value: Value, place: &str) -> Api<Part> {
        let mut fields = Fields::new(value, place)?;
        let kind = fields.string("type")?.unwrap_or_default();
        let part = match kind.as_str() {
            "text" => {
                let name = fields.name("text");
                let text = fields.string("text")?.ok_or_else(|| ApiError::field(name, "nothing", "a text"))?;
                // A request for Anthropic's prompt cache.
                fields.without_effect(&["cache_control"]);
                Part::Text(text)
            }
            "image_url" => {
                let name = fields.name("image_url");
                let url = match fields.take("image_url") {
                    Some(Value::String(url)) => url,
                    Some(value @ Value::Object(_)) => {
                        let mut image = Fields::new(value, &name)?;
                        image.without_effect(&["detail"]);
                        let url = image.string("url")?;
                        image.end()?;
                        url.unwrap_or_default()
                    }
                    _ => String::new(),
                };
                self.images.push((name, url));
                Part::Image
            }
            other => {
                let expected = "text or image_url (audio, video and files are not supported)";
                return Err(ApiError::field(fields.name("type"), format!("{other:?}"), expected));
            }
        };
        fields.end()?;
        Ok(part)
    }

    /// Returns the ids of the prompt, with one placeholder for each image. The text of messages never yields the special
    /// token of a turn or an image.
    pub fn encode(&self, chat: &Chat) -> Api<Vec<u32>> {
        // lmms-eval asks every model for its thinking, which a template without the variable does not switch off.
        let is_idle = |name: &str, value: &Value| name == "enable_thinking" && *value == json!(true);
        let read = self.variables.iter().filter(|(name, value)| !is_idle(name, value));
        let read = read.map(|(name, value)| (name.clone(), value.clone())).collect();
        chat.template.check_variables(&read).map_err(|error| ApiError::refused(KWARGS, error))?;
        let ids = match self.continue_final_message {
            true => chat.encode_continued(&self.messages, &self.variables),
            false => chat.encode_with(&self.messages, self.add_generation_prompt, Special::Plain, &self.variables),
        };
        ids.map_err(|error| ApiError::refused("messages", error))
    }
}

/// Returns the URLs of all images in the body of a request, with the names of their fields.
pub fn image_urls(body: &mut Value) -> Vec<(String, &mut String)> {
    let mut found = Vec::new();
    let Some(body) = body.as_object_mut() else { return found };
    for (key, value) in body {
        let Some(list) = value.as_array_mut() else { continue };
        for (i, entry) in list.iter_mut().enumerate() {
            match key.as_str() {
                "messages" => {
                    let parts = entry.get_mut("content").and_then(Value::as_array_mut).into_iter().flatten();
                    for (j, part) in parts.enumerate() {
                        let Some(url) = part.get_mut("image_url").and_then(url_of) else { continue };
                        found.push((format!("messages[{i}].content[{j}].image_url"), url));
                    }
                }
                "content_parts" => {
                    let Some(Value::String(url)) = entry.get_mut("url") else { continue };
                    found.push((format!("content_parts[{i}].url"), url));
                }
                _ => {}
            }
        }
    }
    found
}

fn url_of(value: &mut Value) -> Option<&mut String> {
    let value = if value.is_object() { value.get_mut("url")? } else { value };
    match value {
        Value::String(url) => Some(url),
        _ => None,
    }
}
