//! Converts elements of Arrow arrays of any type to JSON values and images.

use arrow_array::cast::AsArray;
use arrow_array::types::{Float16Type, Float32Type, Float64Type};
use arrow_array::{Array, ArrayRef, RecordBatch, StructArray, downcast_integer_array};
use arrow_schema::DataType;
use serde_json::{Map, Value};

use crate::rows::forms::fields::{Fields, RawImage, SIZE_OF_ALL, SIZES};
use crate::rows::forms::names::Names;

/// Returns a readable name for a type, without distinctions that only Arrow makes.
pub(crate) fn type_name(kind: &DataType) -> String {
    match kind {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text".to_owned(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "bytes".to_owned(),
        DataType::List(of) | DataType::LargeList(of) | DataType::FixedSizeList(of, _) => {
            format!("list of {}", type_name(of.data_type()))
        }
        DataType::Struct(fields) => {
            let fields: Vec<String> =
                fields.iter().map(|field| format!("{}: {}", field.name(), type_name(field.data_type()))).collect();
            format!("{{{}}}", fields.join(", "))
        }
        DataType::Dictionary(_, of) => type_name(of),
        other => other.to_string().to_lowercase(),
    }
}

type RowResult<T> = std::result::Result<T, String>;

/// Metadata of a field of `extra_info` whose texts are JSON.
pub(crate) const JSON: (&str, &str) = ("omr", "json");

/// Returns true if element `i` is null. `datasets` gives a column without any value the type null.
pub(crate) fn is_null(array: &dyn Array, i: usize) -> bool {
    array.is_null(i) || *array.data_type() == DataType::Null
}

/// Returns element `i` as JSON.
pub(crate) fn value(array: &dyn Array, i: usize) -> RowResult<Value> {
    if is_null(array, i) {
        return Ok(Value::Null);
    }
    if let Some(text) = text(array, i) {
        return Ok(Value::String(text.to_owned()));
    }
    if let Some(list) = list(array, i) {
        return (0..list.len()).map(|j| value(&list, j)).collect::<RowResult<Vec<_>>>().map(Value::Array);
    }
    Ok(match array.data_type() {
        DataType::Boolean => Value::Bool(array.as_boolean().value(i)),
        DataType::Float16 => number(f64::from(array.as_primitive::<Float16Type>().value(i))),
        DataType::Float32 => number(f64::from(array.as_primitive::<Float32Type>().value(i))),
        DataType::Float64 => number(array.as_primitive::<Float64Type>().value(i)),
        t if t.is_integer() => integer(array, i).map(|n| Value::Number(n.into())).unwrap_or_default(),
        DataType::Struct(_) => {
            let group = array.as_struct();
            let mut map = Map::new();
            for (field, column) in group.fields().iter().zip(group.columns()) {
                // Byte values are left out, because a row can hold bytes only in its image column.
                if bytes(column, i).is_none() {
                    let is_json = field.metadata().get(JSON.0).is_some_and(|kind| kind == JSON.1);
                    let json = text(column, i).filter(|_| is_json).and_then(|text| serde_json::from_str(text).ok());
                    map.insert(field.name().clone(), json.map_or_else(|| value(column, i), Ok)?);
                }
            }
            Value::Object(map)
        }
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            let key = integer(dictionary.keys(), i).and_then(|key| usize::try_from(key).ok());
            key.map_or(Ok(Value::Null), |key| value(dictionary.values().as_ref(), key))?
        }
        other => return Err(format!("found type {other}, expected text, numbers, lists or structs")),
    })
}

fn number(x: f64) -> Value {
    serde_json::Number::from_f64(x).map_or(Value::Null, Value::Number)
}

// Only the conversion from u64 can fail.
#[allow(clippy::useless_conversion, clippy::unnecessary_fallible_conversions)]
fn integer(array: &dyn Array, i: usize) -> Option<i64> {
    downcast_integer_array!(array => i64::try_from(array.value(i)).ok(), _ => None)
}

fn text(array: &dyn Array, i: usize) -> Option<&str> {
    match array.data_type() {
        DataType::Utf8 => Some(array.as_string::<i32>().value(i)),
        DataType::LargeUtf8 => Some(array.as_string::<i64>().value(i)),
        DataType::Utf8View => Some(array.as_string_view().value(i)),
        _ => None,
    }
}

fn bytes(array: &dyn Array, i: usize) -> Option<&[u8]> {
    match array.data_type() {
        DataType::Binary => Some(array.as_binary::<i32>().value(i)),
        DataType::LargeBinary => Some(array.as_binary::<i64>().value(i)),
        DataType::BinaryView => Some(array.as_binary_view().value(i)),
        _ => None,
    }
}

fn list(array: &dyn Array, i: usize) -> Option<ArrayRef> {
    match array.data_type() {
        DataType::List(_) => Some(array.as_list::<i32>().value(i)),
        DataType::LargeList(_) => Some(array.as_list::<i64>().value(i)),
        DataType::FixedSizeList(..) => Some(array.as_fixed_size_list().value(i)),
        _ => None,
    }
}

/// Returns the images of element `i` of an image column. The element is a list of images or a single image.
pub(crate) fn images(array: &dyn Array, i: usize) -> RowResult<Vec<RawImage>> {
    match list(array, i) {
        Some(list) => (0..list.len()).map(|j| image(&list, j)).collect(),
        None => Ok(vec![image(array, i)?]),
    }
}

fn image(array: &dyn Array, i: usize) -> RowResult<RawImage> {
    if is_null(array, i) {
        return Ok(RawImage::default());
    }
    if let Some(bytes) = bytes(array, i) {
        return Ok(RawImage { bytes: Some(bytes.into()), path: None });
    }
    if let Some(url) = text(array, i) {
        return Ok(RawImage { bytes: None, path: Some(url.to_owned()) });
    }
    let Some(group) = array.as_any().downcast_ref::<StructArray>() else {
        return Err(format!("found type {}, expected structs of `bytes` and `path`", array.data_type()));
    };
    let column = |name: &str| group.column_by_name(name).filter(|c| !is_null(c, i));
    if let Some(size) = SIZES.iter().find(|name| column(name).is_some()) {
        return Err(format!("{size} of an image, expected {SIZE_OF_ALL}"));
    }
    let wrong = |c: &ArrayRef| format!("`bytes` has type {}, expected binary", c.data_type());
    let bytes = column("bytes").map(|c| bytes(c, i).ok_or_else(|| wrong(c))).transpose()?.map(Into::into);
    let path = ["path", "image", "url"].into_iter().find_map(|name| text(column(name)?, i)).map(str::to_owned);
    Ok(RawImage { bytes, path })
}

/// Returns the fields of row `i` of a batch, with columns renamed to the canonical names. Errors name the column.
pub(crate) fn fields(batch: &RecordBatch, i: usize, names: &Names) -> RowResult<Fields> {
    let mut map = Map::new();
    let mut row_images = None;
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        let name = field.name();
        let wrong = |what: String| format!("column `{name}`: {what}");
        let meaning = names.meaning(name);
        if names.keeps(name) {
            match value(column, i) {
                Ok(value) => names.keep(&mut map, name, &value),
                // A column that nothing reads may have a type that JSON lacks, such as bytes.
                Err(_) if !names.reads(name) => {}
                Err(what) => return Err(wrong(what)),
            }
        }
        let Some(ours) = meaning.filter(|_| !is_null(column, i)) else { continue };
        // A file may have both `image` and `images`. A column that already has the canonical name takes precedence.
        let first = ours == name;
        if ours == "images" {
            let has_none = row_images.as_ref().is_none_or(Vec::is_empty);
            if first || has_none {
                let found = images(column, i).map_err(wrong)?;
                row_images = row_images.filter(|_| !has_none && found.is_empty()).or(Some(found));
            }
        } else if first || !map.contains_key(ours) {
            map.insert(ours.to_owned(), value(column, i).map_err(wrong)?);
        }
    }
    Ok((map, row_images))
}

/// Returns the names of the columns with images in the rows of a batch.
pub(crate) fn image_columns(batch: &RecordBatch) -> Vec<String> {
    let is_image = |column: &ArrayRef, i| {
        let found = if is_null(column, i) { Ok(Vec::new()) } else { images(column, i) };
        found.is_ok_and(|found| !found.is_empty() && found.iter().all(RawImage::is_image))
    };
    let schema = batch.schema();
    let columns = schema.fields().iter().zip(batch.columns());
    let found = columns.filter(|(_, column)| (0..batch.num_rows()).any(|i| is_image(column, i)));
    found.map(|(field, _)| field.name().clone()).collect()
}
