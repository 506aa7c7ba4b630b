//! The length of a whole run: its steps, its epochs, and its hours at a stated length of the responses.

use serde_json::{Value, json};

/// A run with its time, as far as the config and the number of rows determine it.
pub struct Run {
    /// Number of steps.
    pub steps: Option<u64>,
    /// Number of passes over the rows.
    pub epochs: Option<f64>,
    /// Number of tokens of each response. 0 in SFT.
    pub response: usize,
    /// Hours at peak rates.
    pub hours: Option<f64>,
    /// Predicted hours.
    pub predicted: Option<f64>,
}

impl Run {
    /// Describes the run in a line.
    pub fn text(&self) -> String {
        let epochs = self.epochs.map(|epochs| format!("{} epochs", (100.0 * epochs).round() / 100.0));
        let (Some(steps), Some(hours)) = (self.steps, self.hours) else {
            let hint = "--data-rows N, with the number of rows, adds the steps and hours of the whole run";
            return format!("{}; {hint}", epochs.unwrap_or_default());
        };
        let epochs = epochs.map_or(String::new(), |epochs| format!(", {epochs}"));
        let predicted = self.predicted.map_or(String::new(), |hours| format!(", predicted {hours:.1} h"));
        let length = format!(", if each response has {} tokens (a step ends with its longest response)", self.response);
        let length = if self.response > 0 { &length } else { "" };
        format!("{steps} steps{epochs}: at least {hours:.1} h{predicted}{length}")
    }

    /// Formats the run as JSON.
    pub fn json(&self) -> Value {
        let Run { steps, epochs, response, hours, predicted } = self;
        json!({ "steps": steps, "epochs": epochs, "response": response, "hours": hours, "predicted_hours": predicted })
    }
}
