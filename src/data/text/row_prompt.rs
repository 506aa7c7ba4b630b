//! Creates a prompt from the columns of a row with a Jinja template.

use minijinja::{Environment, UndefinedBehavior};
use serde_json::{Map, Value};

use omr_base::error::{Error, Result};

/// Maximum number of template instructions per row.
const FUEL: u64 = 1_000_000;
const NAME: &str = "prompt";

/// A template over the columns of a row.
#[derive(Debug)]
pub struct RowPrompt {
    env: Environment<'static>,
    place: String,
}

impl RowPrompt {
    /// Compiles a template. Errors use `place` as the name of the template.
    pub fn new(source: &str, place: &str) -> Result<RowPrompt> {
        let mut env = Environment::new();
        env.set_undefined_behavior(UndefinedBehavior::SemiStrict);
        env.set_trim_blocks(true);
        env.set_lstrip_blocks(true);
        env.set_fuel(Some(FUEL));
        env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        env.add_template_owned(NAME, source.to_owned())
            .map_err(|error| Error::input(place, error.to_string(), "a Jinja template over a row's columns"))?;
        Ok(RowPrompt { env, place: place.to_owned() })
    }

    /// Returns the columns that the template reads, sorted.
    pub fn columns(&self) -> Vec<String> {
        let template = self.env.get_template(NAME);
        let mut names: Vec<String> =
            template.map(|template| template.undeclared_variables(false).into_iter().collect()).unwrap_or_default();
        names.sort_unstable();
        names
    }

    /// Renders the text for a row. Errors name the template, the row `row`, and its fields, of which `others` are not
    /// given to the template.
    pub fn render(&self, fields: &Map<String, Value>, others: &Map<String, Value>, row: &str) -> Result<String> {
        let text = self.env.get_template(NAME).and_then(|template| template.render(fields));
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
}
