//! The weights of domains in a batch, as Vero writes them.

use serde_json::{Map, Value};

use super::{Place, Setting, describe};
use crate::error::{Error, Result};

/// Weight of each domain, in the order in which they are written. The order decides which domain takes a prompt that is
/// left after rounding.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DomainWeights(pub Vec<(String, f64)>);

impl DomainWeights {
    /// Reads the text form `a:1,b:2` or a JSON object in a text.
    fn parse(text: &str) -> Option<Map<String, Value>> {
        if text.trim_start().starts_with('{') {
            return serde_json::from_str(text).ok();
        }
        let entry = |entry: &str| {
            let (name, weight) = entry.rsplit_once(':')?;
            Some((name.trim().to_owned(), weight.trim().parse::<f64>().ok()?.into()))
        };
        text.split(',').filter(|part| !part.trim().is_empty()).map(entry).collect()
    }
}

impl Setting for DomainWeights {
    fn set(&mut self, place: &Place, path: &str, value: &Value) -> Result<()> {
        let fault = |found: String| Error::input(place.of(path), found, self.kind());
        let entries = match value {
            Value::Object(entries) => Some(entries.clone()),
            Value::String(text) => DomainWeights::parse(text),
            _ => None,
        };
        let entries = entries.ok_or_else(|| fault(describe::inline(value)))?;
        let weight = |(name, weight): (String, Value)| match weight.as_f64().filter(|w| w.is_finite() && *w >= 0.0) {
            Some(weight) => Ok((name, weight)),
            None => Err(fault(format!("{name}: {}", describe::inline(&weight)))),
        };
        let weights: Vec<(String, f64)> = entries.into_iter().map(weight).collect::<Result<_>>()?;
        if !weights.iter().any(|(_, weight)| *weight > 0.0) {
            return Err(fault("no weight above 0".to_owned()));
        }
        self.0 = weights;
        Ok(())
    }
    fn write(&self) -> Value {
        Value::Object(self.0.iter().map(|(name, weight)| (name.clone(), (*weight).into())).collect())
    }
    fn kind(&self) -> String {
        "a mapping from domains to numbers from 0, such as {stem: 1, chart_ocr: 2} or stem:1,chart_ocr:2".to_owned()
    }
}
