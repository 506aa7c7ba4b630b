//! Tests chat templates whose `{% generation %}` blocks say what is trained, as `assistant_only_loss` of TRL does.

use omr_data::text::{Chat, ChatTemplate, Message, Part, Special};

use super::tokenizer;
use crate::models::chat_config;

/// A template in the manner of TRL's training templates: the text of an assistant's turn and its end are generated.
const TEMPLATE: &str = "\
{%- for message in messages %}
    {%- if message['role'] == 'assistant' %}
<|im_start|>assistant
        {%- generation %}
{{ '\\n' + message['content'] + '<|im_end|>' }}
        {%- endgeneration %}
{{- '\\n' }}
    {%- else %}
        {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}";

fn chat_of(template: &str) -> Chat {
    let template = ChatTemplate::new(template, "test").unwrap();
    Chat::new(tokenizer().clone(), template, &chat_config(tokenizer()), "test").unwrap()
}

fn conversation() -> Vec<Message> {
    let turn = |role: &str, text: &str| Message::text(role, text);
    vec![
        turn("user", "the image?"),
        turn("assistant", "of <|im_end|> the vision"),
        turn("user", "start"),
        turn("assistant", "end"),
    ]
}

/// Returns the trained texts.
fn trained(chat: &Chat, messages: &[Message]) -> Vec<String> {
    let (ids, mask) = chat.encode_trained(messages).unwrap().unwrap();
    let marked: Vec<(u32, bool)> = ids.into_iter().zip(mask).collect();
    let runs = marked.chunk_by(|a, b| a.1 == b.1).filter(|run| run[0].1);
    runs.map(|run| chat.tokenizer.decode(&run.iter().map(|(id, _)| *id).collect::<Vec<_>>(), false)).collect()
}

#[test]
fn the_blocks_of_a_template_are_what_is_trained() {
    let (chat, mut messages) = (chat_of(TEMPLATE), conversation());
    assert_eq!(trained(&chat, &messages), ["\nof <|im_end|> the vision<|im_end|>", "\nend<|im_end|>"]);
    // The blocks change no token, and a text cannot become a special token in them.
    let whole = chat.encode(&messages, false, Special::Plain).unwrap();
    let (ids, mask) = chat.encode_trained(&messages).unwrap().unwrap();
    assert_eq!(chat.tokenizer.decode(&ids, false), chat.tokenizer.decode(&whole, false));
    assert_eq!(ids.iter().filter(|&&id| id == chat.turn.end).count(), 4);
    assert_eq!(mask.len(), ids.len());
    // A row can mask a turn as well.
    messages[1].masked = true;
    assert_eq!(trained(&chat, &messages), ["\nend<|im_end|>"]);
}

#[test]
fn a_template_that_marks_other_blocks_than_turns_decides_alone() {
    let last = TEMPLATE.replace("message['role'] == 'assistant'", "loop.last");
    let (chat, mut messages) = (chat_of(&last), conversation());
    assert_eq!(trained(&chat, &messages), ["\nend<|im_end|>"]);
    messages[3].masked = true;
    let error = chat.encode_trained(&messages).unwrap_err().to_string();
    assert!(error.contains("1 generation blocks and a masked turn, expected 2"), "{error}");
    // Without blocks, the caller finds the turns itself.
    let plain = TEMPLATE.replace("{%- generation %}", "").replace("{%- endgeneration %}", "");
    assert_eq!(chat_of(&plain).encode_trained(&messages).unwrap(), None);
    let unclosed = ChatTemplate::new("{% generation %}{{ messages[0].content }}", "test").err().unwrap().to_string();
    assert!(unclosed.contains("test: found"), "{unclosed}");
}

#[test]
fn images_keep_their_places_beside_blocks() {
    let template = "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}\
        {% else %}{% for part in m.content %}{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}{% endfor %}";
    let user = Message { content: vec![Part::Image, Part::Text("the image".into())], ..Message::text("user", "") };
    let chat = chat_of(template);
    let (ids, mask) = chat.encode_trained(&[user, Message::text("assistant", "start")]).unwrap().unwrap();
    let at = ids.iter().position(|&id| id == chat.media.unwrap().ids.image).unwrap();
    assert!(!mask[at] && mask.last() == Some(&true));
}
