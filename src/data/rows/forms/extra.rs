//! The column `extra_info`: fields of a row that have no column of their own.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, LargeStringArray, RecordBatch, StringArray, StructArray,
};
use arrow_schema::{DataType, Field, Fields, Schema};
use serde_json::{Map, Value};

use super::fields::plain;
use crate::rows::readers::cells;
use omr_base::error::{Error, Result};

/// Name of the column.
pub const COLUMN: &str = "extra_info";

/// Fields of the column: every key that any row has, with the narrowest type that holds all its values. The type
/// `LargeUtf8` is for keys with lists or structs: all their values are written as JSON, in a field with the metadata
/// [`cells::JSON`].
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ExtraColumns(Vec<(String, DataType)>);

impl ExtraColumns {
    /// Returns these fields extended by the fields of `rows`.
    pub fn with<'a>(&self, rows: impl IntoIterator<Item = &'a Map<String, Value>>) -> ExtraColumns {
        let mut columns = self.0.clone();
        for (key, value) in rows.into_iter().flatten() {
            let kind = match value {
                Value::Null => continue,
                Value::Bool(_) => DataType::Boolean,
                Value::Number(n) if n.is_i64() => DataType::Int64,
                Value::Number(_) => DataType::Float64,
                Value::String(_) => DataType::Utf8,
                Value::Array(_) | Value::Object(_) => DataType::LargeUtf8,
            };
            match columns.iter_mut().find(|(k, _)| k == key) {
                None => columns.push((key.clone(), kind)),
                Some((_, known)) if *known == kind => {}
                Some((_, known)) => {
                    let numbers = |t: &DataType| matches!(t, DataType::Int64 | DataType::Float64);
                    *known = match numbers(known) && numbers(&kind) {
                        true => DataType::Float64,
                        false if [&*known, &kind].contains(&&DataType::LargeUtf8) => DataType::LargeUtf8,
                        false => DataType::Utf8,
                    };
                }
            }
        }
        ExtraColumns(columns)
    }

    /// Returns the column for `rows`, or `None` if no row of the file has a field.
    pub fn column(&self, rows: &[&Map<String, Value>]) -> Result<Option<ArrayRef>> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let (mut fields, mut columns) = (Vec::new(), Vec::new());
        for (key, kind) in &self.0 {
            let values = rows.iter().map(|row| row.get(key).filter(|v| !v.is_null()));
            let column: ArrayRef = match kind {
                DataType::Boolean => Arc::new(BooleanArray::from_iter(values.map(|v| v.and_then(Value::as_bool)))),
                DataType::Int64 => Arc::new(Int64Array::from_iter(values.map(|v| v.and_then(Value::as_i64)))),
                DataType::Float64 => Arc::new(Float64Array::from_iter(values.map(|v| v.and_then(Value::as_f64)))),
                DataType::LargeUtf8 => Arc::new(LargeStringArray::from_iter(values.map(|v| v.map(Value::to_string)))),
                _ => Arc::new(StringArray::from_iter(values.map(|v| v.map(plain)))),
            };
            let is_json = *kind == DataType::LargeUtf8;
            let mark = (cells::JSON.0.to_owned(), cells::JSON.1.to_owned());
            let metadata: HashMap<_, _> = is_json.then_some(mark).into_iter().collect();
            fields.push(Field::new(key, kind.clone(), true).with_metadata(metadata));
            columns.push(column);
        }
        let column = StructArray::try_new(Fields::from(fields), columns, None);
        Ok(Some(Arc::new(column.map_err(arrow_error)?)))
    }

    /// Converts a batch that was written with fewer or narrower fields to these fields.
    pub fn widen(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let mut rows = vec![Map::new(); batch.num_rows()];
        if let Some((place, field)) = batch.schema_ref().column_with_name(COLUMN) {
            let column = batch.column(place);
            for (i, row) in rows.iter_mut().enumerate() {
                let Value::Object(values) = cells::value(field, column, i, false).map_err(Error::Failed)? else {
                    continue;
                };
                for (name, value) in values.into_iter().filter(|(_, value)| !value.is_null()) {
                    // Integers that were stored as f64 become integers again, so that text made from these numbers has
                    // no decimal point.
                    let whole = value.as_f64().filter(|x| value.is_f64() && x.fract() == 0.0 && x.abs() < 9e15);
                    row.insert(name, whole.map_or(value, |x| Value::from(x as i64)));
                }
            }
        }
        let kept = |(field, _): &(&Arc<Field>, &ArrayRef)| field.name() != COLUMN;
        let schema = batch.schema();
        let mut columns: Vec<(Arc<Field>, ArrayRef)> =
            schema.fields().iter().zip(batch.columns()).filter(kept).map(|(f, c)| (f.clone(), c.clone())).collect();
        if let Some(column) = self.column(&rows.iter().collect::<Vec<_>>())? {
            columns.push((Arc::new(Field::new(COLUMN, column.data_type().clone(), true)), column));
        }
        let (fields, columns): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(arrow_error)
    }
}

/// Converts an error of arrow while rows are written.
pub(crate) fn arrow_error(e: arrow_schema::ArrowError) -> Error {
    Error::Failed(format!("converting rows to columns: {e}"))
}
