//! Text: the tokenizer, the chat template, and both combined as [`Chat`].
//!
//! Ids are identical to the ids that Hugging Face's tokenizer returns. Text is encoded in one of two modes
//! ([`Special`]). `Parse` recognises special tokens anywhere in the text, as Hugging Face does. `Plain` recognises them
//! only where the chat template wrote them, so a user's text cannot open a turn or an image.

mod allowed;
mod bounded;
mod chat;
pub mod exact;
mod jinja;
mod json;
pub mod literal;
mod row_prompt;
mod template;
mod tokenizer;
mod train;
mod turn;

pub use chat::{Chat, ChatConfig};
pub use json::{number, repr};
pub use row_prompt::RowPrompt;
pub use template::{ChatTemplate, Message, Part};
pub use tokenizer::{DecodeStream, Special, Tokenizer};
pub use train::{CHAT_TEMPLATE, SPECIAL_TOKENS, TEMPLATE_WORDS, train_tokenizer, write_tokenizer_dir};
pub use turn::missing_stops;
