//! Creates a prompt from the columns of a row with a Jinja template.

use std::sync::LazyLock;

use minijinja::{Environment, UndefinedBehavior};
use serde_json::{Map, Value};

use super::bounded::Bounded;
use omr_base::error::{Error, Result};

/// The language of these templates, in which an undefined value that is printed is an error.
static PLAIN: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut env = Environment::new();
    env.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    env
});

/// A template over the columns of a row.
#[derive(Debug)]
pub struct RowPrompt {
    template: Bounded,
    place: String,
}

impl RowPrompt {
    /// Compiles a template. Errors use `place` as the name of the template.
    pub fn new(source: &str, place: &str) -> Result<RowPrompt> {
        let template = Bounded::new(source, &PLAIN, minijinja::Value::clone, 1 << 26);
        let wrong =
            |error: minijinja::Error| Error::input(place, error.to_string(), "a Jinja template over a row's columns");
        Ok(RowPrompt { template: template.map_err(wrong)?, place: place.to_owned() })
    }

    /// Returns the columns that the template reads, sorted.
    pub fn columns(&self) -> Vec<String> {
        self.template.variables.clone()
    }

    /// Renders the text for a row. Errors name the template, the row `row`, and its fields, of which `others` are not
    /// given to the template.
    pub fn render(&self, fields: &Map<String, Value>, others: &Map<String, Value>, row: &str) -> Result<String> {
        let given = fields.values().filter_map(Value::as_str).map(str::len).sum();
        let text = self.template.render(minijinja::Value::from_serialize(fields), given);
        text.map_err(|error| {
            let names: Vec<&str> = fields.keys().chain(others.keys()).map(String::as_str).collect();
            let expected = format!("a template over {}", names.join(", "));
            Error::input(format!("{}, {row}", self.place), error.to_string(), expected)
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_column_that_is_missing_is_named() {
        let source = "{{ question }}\n{% for o in options %}\n{{ loop.index }}. {{ o }}\n{% endfor %}";
        let prompt = RowPrompt::new(source, "t.yaml").unwrap();
        assert_eq!(prompt.columns(), ["options", "question"]);
        let row = |value: Value| if let Value::Object(map) = value { map } else { Map::new() };
        let text =
            prompt.render(&row(json!({"question": "Which?", "options": ["a", 2]})), &Map::new(), "row 1").unwrap();
        assert_eq!(text, "Which?\n1. a\n2. 2\n");
        let error = prompt.render(&row(json!({"questions": "Which?"})), &Map::new(), "row 2").unwrap_err().to_string();
        assert!(error.contains("t.yaml, row 2") && error.contains("questions"), "{error}");
        assert!(RowPrompt::new("{{ question", "t.yaml").is_err());
    }

    #[test]
    fn a_template_of_a_row_that_grows_without_bound_or_panics_is_an_error() {
        let row = json!({"text": "a\n".repeat(1000), "list": ["a", "b"], "n": 1_000_000_000});
        let Value::Object(row) = row else { unreachable!() };
        for (source, part) in [
            (
                "{% set n = namespace(s='x') %}{% for i in range(40) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
                "it builds",
            ),
            ("{{ text * n }}", "it builds"),
            ("{{ text.center(n) }}", "it builds"),
            ("{{ [text] | map('indent', n) | list }}", "it builds"),
            ("{% for i in range(100000) %}{% for j in range(1000) %}0123456789abcdef{% endfor %}{% endfor %}", "fuel"),
            ("{% for i in list %}{{ loop.cycle() }}{% endfor %}", "the template library fails"),
        ] {
            let prompt = RowPrompt::new(source, "t.yaml").unwrap();
            let error = prompt.render(&row, &Map::new(), "row 1").unwrap_err().to_string();
            assert!(error.contains("t.yaml, row 1") && error.contains(part), "{source}: {error}");
        }
        // Values print as in Python.
        let source =
            "{{ list }} {{ n / 2 }} {{ true }}{{ none }} {{ list | map('upper') | join('-') }} {{ 'a' ~ list }}";
        let text = RowPrompt::new(source, "t.yaml").unwrap().render(&row, &Map::new(), "row 1").unwrap();
        assert_eq!(text, "[\"a\", \"b\"] 500000000.0 TrueNone A-B a[\"a\", \"b\"]");
    }
}
