//! Tests the template engine: the features that Hugging Face's templates use, and limits on their work.

use std::fs;

use omr_data::text::{CHAT_TEMPLATE, ChatTemplate, Message, Special, Tokenizer, write_tokenizer_dir};
use serde_json::{Map, Value, json};

fn render(source: &str, variables: Value) -> omr_base::error::Result<String> {
    let variables: Map<String, Value> = serde_json::from_value(variables).unwrap();
    ChatTemplate::new(source, "t.jinja")?.render_with(&[Message::text("user", "hi")], true, &variables)
}

#[test]
fn what_templates_use_works_as_in_jinja2() {
    for (source, expected) in [
        ("{% for m in messages %}\n    {{ m['content'] }}\n{% endfor %}\n", "    hi\n"),
        ("{{ messages[0].role.upper() }}{{ ' x '.strip() }}{{ 'a-b'.split('-')[-1] }}", "USERxb"),
        ("{{ tools | tojson }}", r#"[{"name": "f", "x": 1.0, "é": "<a>"}]"#),
        ("{{ tools | tojson(indent=2) }}", "[\n  {\n    \"name\": \"f\",\n    \"x\": 1.0,\n    \"é\": \"<a>\"\n  }\n]"),
        ("{{ tools | tojson(ensure_ascii=true) }}", r#"[{"name": "f", "x": 1.0, "\u00e9": "<a>"}]"#),
        ("{{ tools | tojson(separators=[',', ':']) }}", r#"[{"name":"f","x":1.0,"é":"<a>"}]"#),
        ("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "01"),
        ("{{ none }} {{ true }} {{ missing }}", "None True "),
        ("{% if add_generation_prompt %}yes{% endif %}", "yes"),
        ("{{ strftime_now('%d %b %Y') }}", "26 Jul 2024"),
        ("{{ '<b>' }}", "<b>"),
    ] {
        let tools = json!({"tools": [{"name": "f", "x": 1.0, "\u{e9}": "<a>"}]});
        assert_eq!(render(source, tools).unwrap(), expected, "{source}");
    }
}

#[test]
fn tests_and_printed_values_are_those_of_jinja2() {
    for (source, expected) in [
        (
            "{{ none is iterable }} {{ missing is iterable }} {{ 5 is iterable }} {{ 'a' is iterable }}",
            "False True False True",
        ),
        (
            "{{ none is sequence }} {{ 'a' is sequence }} {{ {} is sequence }} {{ [] is sequence }}",
            "False True True True",
        ),
        ("{{ true is number }} {{ 1.5 is number }} {{ 'a' is number }}", "True True False"),
        ("{% if tools is iterable and tools | length > 0 %}TOOLS{% else %}none{% endif %}", "none"),
        ("{{ messages[0] }}", "{'role': 'user', 'content': 'hi'}"),
        ("{{ [1, 'it\\'s', none, true, 1.0] }} {{ {'a': [1]} }}", "[1, \"it's\", None, True, 1.0] {'a': [1]}"),
        ("{{ 'a b'.split() ~ 1e20 }} {{ [1] | string }}", "['a', 'b']1e+20 [1]"),
        ("{{ '' or 'd' }}|{{ '' and 'b' }}|{{ 'a' and 'b' }}|{{ 'x' == 'x' and 'b' in 'abc' }}", "d||b|True"),
        ("{{ messages[0].content ~ '<\"\\'&' | e }}", "hi&lt;&#34;&#39;&amp;"),
    ] {
        assert_eq!(render(source, json!({})).unwrap(), expected, "{source}");
    }
}

#[test]
fn a_template_that_tests_tools_for_none_renders_no_tools() {
    let source = "{% if tools is not none %}TOOLS{% endif %}{% if documents is not none %}DOCS{% endif %}{% if tools is defined %}x{% endif %}";
    assert_eq!(render(source, json!({})).unwrap(), "x");
    assert_eq!(render(source, json!({"tools": [{"name": "f"}]})).unwrap(), "TOOLSx");
}

#[test]
fn a_template_that_refuses_or_runs_away_is_an_error() {
    for (source, what) in [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}", "fuel"),
        ("{% for i in range(90000) %}{{ '0123456789012345678901234567890123456789' }}{% endfor %}", "bytes of output"),
        ("{{ messages[0].nothing.more }}", "undefined"),
        ("{% if %}", "t.jinja"),
        ("{{ strftime_now('%') }}", "t.jinja"),
        ("{% for m in messages %}{{ loop.cycle() }}{% endfor %}", "the template library fails"),
        ("{{ ['a\na'] | map('indent', 1000000000) | list }}", "it builds more than"),
    ] {
        let error = render(source, json!({})).unwrap_err();
        assert!(error.to_string().starts_with("t.jinja: ") && error.to_string().contains(what), "{source}: {error}");
        assert_eq!(error.exit_code(), 2);
    }
}

#[test]
fn the_directorys_templates_have_an_order() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &str| fs::write(dir.path().join(name), content).unwrap();
    let source = || ChatTemplate::load(dir.path()).map(|t| t.source().to_owned());

    assert!(source().unwrap_err().to_string().contains("no chat template"));
    write("tokenizer_config.json", r#"{"chat_template": [{"name": "tool_use", "template": "t"}]}"#);
    assert!(source().unwrap_err().to_string().contains("tokenizer_config.json"));
    let listed = r#"{"chat_template": [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]}"#;
    write("tokenizer_config.json", listed);
    assert_eq!(source().unwrap(), "d");
    let config = r#"{"chat_template": "c", "eos_token": {"content": "<e>"}, "bos_token": "<b>", "pad_token": null}"#;
    write("tokenizer_config.json", config);
    assert_eq!(source().unwrap(), "c");
    write("chat_template.json", r#"{"chat_template": "j"}"#);
    assert_eq!(source().unwrap(), "j");
    write("chat_template.jinja", "{{ bos_token }}{{ eos_token }}{{ pad_token }}");
    assert_eq!(ChatTemplate::load(dir.path()).unwrap().render_with(&[], false, &Default::default()).unwrap(), "<b><e>");

    write("chat_template.jinja", "{% broken");
    assert!(source().unwrap_err().to_string().contains("chat_template.jinja"));
}

#[test]
fn the_config_decides_what_is_special() {
    let dir = tempfile::tempdir().unwrap();
    write_tokenizer_dir(dir.path(), super::tokenizer(), CHAT_TEMPLATE).unwrap();
    let path = dir.path().join("tokenizer_config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let flip = super::tokenizer().id("<|box_start|>").unwrap();
    let tokens = &mut config["added_tokens_decoder"];
    let last = tokens.as_object().unwrap().keys().map(|id| id.parse::<u32>().unwrap()).max();
    let next = last.unwrap() + 1;
    tokens[flip.to_string()]["special"] = false.into();
    let mut more = tokens[flip.to_string()].clone();
    more["content"] = "<more>".into();
    tokens[next.to_string()] = more.clone();
    fs::write(&path, config.to_string()).unwrap();

    let read = Tokenizer::load(dir.path()).unwrap();
    assert_eq!(read.id("<more>"), Some(next));
    assert_eq!(read.encode("<more>", Special::Plain).unwrap(), [next]);
    let end = read.id("<|im_end|>").unwrap();
    assert_eq!(read.decode(&[flip, end, next], true), "<|box_start|><more>");

    config["added_tokens_decoder"] = json!({(next + 7).to_string(): more});
    fs::write(&path, config.to_string()).unwrap();
    let error = Tokenizer::load(dir.path()).err().unwrap().to_string();
    assert!(error.contains(&format!("\"<more>\" the id {}", next + 7)), "{error}");
}

#[test]
fn broken_tokenizers_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tokenizer.json");
    let error = |content: Option<&str>| {
        if let Some(content) = content {
            fs::write(&file, content).unwrap();
        }
        let error = Tokenizer::load(dir.path()).err().unwrap();
        assert!(error.to_string().contains("tokenizer.json"), "{error}");
        assert_eq!(error.exit_code(), 2);
        error.to_string()
    };
    error(None);
    error(Some("{"));
    error(Some("{}"));
    let bpe = |decoder: &str| {
        format!(
            r#"{{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,"pre_tokenizer":null,
            "post_processor":null,"decoder":{decoder},"model":{{"type":"BPE","vocab":{{"a":0}},"merges":[]}}}}"#
        )
    };
    assert!(error(Some(&bpe("null"))).contains("ByteLevel"));
    // An id belongs to one token, and a token has one id.
    let byte_level = r#"{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":false,"use_regex":false}"#;
    let added =
        |tokens: &str| bpe(byte_level).replace(r#""added_tokens":[]"#, &format!(r#""added_tokens":[{tokens}]"#));
    let token = |id: u32, content: &str| {
        let flags = r#""single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true"#;
        format!(r#"{{"id":{id},"content":"{content}",{flags}}}"#)
    };
    fs::write(&file, added(&token(1, "<b>"))).unwrap();
    assert_eq!(Tokenizer::load(dir.path()).unwrap().id("<b>"), Some(1));
    let twice = bpe(byte_level).replace(r#""a":0"#, r#""a":0,"b":0"#);
    assert!(error(Some(&twice)).contains("the tokens \"a\" and \"b\" both have the id 0"));
    assert!(error(Some(&added(&token(0, "<b>")))).contains("gives \"<b>\" the id 0"));
    assert!(error(Some(&added(&token(1, "")))).contains("an empty token"));
}

#[test]
fn the_date_of_llama_is_the_one_in_metas_template_unless_it_is_set() {
    // As in Llama 3.1 and 3.2.
    let fixed = "{% if not date_string is defined %}{% set date_string = '26 Jul 2024' %}{% endif %}{{ date_string }}";
    let today = "{%- if not date_string is defined %}{%- if strftime_now is defined %}\
        {%- set date_string = strftime_now('%d %b %Y') %}{%- else %}{%- set date_string = '26 Jul 2024' %}{%- endif %}\
        {%- endif %}{{- date_string }}";
    for source in [fixed, today] {
        assert_eq!(render(source, json!({})).unwrap(), "26 Jul 2024");
        let variables = json_map(json!({"date_string": "01 Jan 2025"}));
        let template = ChatTemplate::new(source, "t.jinja").unwrap().with_variables(&variables).unwrap();
        assert_eq!(template.render_with(&[], false, &Map::new()).unwrap(), "01 Jan 2025");
        // A request's variables come first.
        assert_eq!(template.render_with(&[], false, &json_map(json!({"date_string": "x"}))).unwrap(), "x");
    }
    let error = ChatTemplate::new("{{ messages }}", "t.jinja").unwrap();
    let error = error.with_variables(&json_map(json!({"date_string": "x"}))).err().unwrap().to_string();
    assert!(error.contains("t.jinja: found date_string=\"x\" in chat_template_kwargs"), "{error}");
}

fn json_map(value: Value) -> Map<String, Value> {
    serde_json::from_value(value).unwrap()
}
