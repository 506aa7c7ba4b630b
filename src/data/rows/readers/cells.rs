//! Converts elements of Arrow arrays of any type to JSON values and images.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, Float16Type, Float32Type,
    Float64Type,
};
use arrow_array::{Array, ArrayRef, RecordBatch, downcast_integer_array};
use arrow_schema::{DataType, Field};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use crate::rows::forms::fields::{Fields, RawImage, is_harmless};
use crate::rows::forms::names::Names;
use crate::text::exact;

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

/// Returns true if the texts of a field are JSON. Returns an error for any other extension type, because its storage
/// does not have the meaning of its values.
fn is_json(field: &Field) -> RowResult<bool> {
    if field.metadata().is_empty() {
        return Ok(false);
    }
    match field.extension_type_name() {
        None => Ok(field.metadata().get(JSON.0).is_some_and(|kind| kind == JSON.1)),
        Some("arrow.json") => Ok(true),
        Some(other) => Err(format!("found the extension type {other}, expected arrow.json or a plain type")),
    }
}

/// Returns element `i` of a field as JSON. Bytes inside of structs become base64 if `with_bytes` is true, and are left
/// out otherwise.
pub(crate) fn value(field: &Field, array: &dyn Array, i: usize, with_bytes: bool) -> RowResult<Value> {
    let is_json = is_json(field)?;
    if is_null(array, i) {
        return Ok(Value::Null);
    }
    if let Some(text) = text(array, i) {
        let invalid = |e| format!("found invalid JSON ({e}) in a column of JSON, expected JSON");
        return match is_json.then(|| exact::from_str(text).map_err(invalid)).transpose()? {
            // `datasets` stores a text such as `5` or `true` as it is, so that it looks like a number.
            None | Some(Value::Number(_) | Value::Bool(_)) => Ok(Value::String(text.to_owned())),
            Some(json) => Ok(json),
        };
    }
    if let Some((of, list)) = list(array, i) {
        return (0..list.len())
            .map(|j| value(of, &list, j, with_bytes))
            .collect::<RowResult<Vec<_>>>()
            .map(Value::Array);
    }
    Ok(match array.data_type() {
        DataType::Boolean => Value::Bool(array.as_boolean().value(i)),
        DataType::Float16 => number(half(array.as_primitive::<Float16Type>().value(i)))?,
        DataType::Float32 => number(digits(array.as_primitive::<Float32Type>().value(i)))?,
        DataType::Float64 => number(array.as_primitive::<Float64Type>().value(i))?,
        DataType::Decimal32(..) => array.as_primitive::<Decimal32Type>().value_as_string(i).into(),
        DataType::Decimal64(..) => array.as_primitive::<Decimal64Type>().value_as_string(i).into(),
        DataType::Decimal128(..) => array.as_primitive::<Decimal128Type>().value_as_string(i).into(),
        DataType::Decimal256(..) => array.as_primitive::<Decimal256Type>().value_as_string(i).into(),
        t if t.is_integer() => downcast_integer_array!(array => array.value(i).into(), _ => Value::Null),
        DataType::Struct(_) => {
            let group = array.as_struct();
            let mut map = Map::new();
            for (field, column) in group.fields().iter().zip(group.columns()) {
                let name = field.name();
                let inner = match bytes(column, i).filter(|_| !column.is_null(i)) {
                    Some(bytes) if with_bytes => STANDARD.encode(bytes).into(),
                    Some(_) => continue,
                    None => match value(field, column, i, with_bytes) {
                        // Times have no form in JSON.
                        Err(_) if is_harmless(name) => continue,
                        inner => inner?,
                    },
                };
                if map.insert(name.clone(), inner).is_some() {
                    return Err(format!("found two fields `{name}` in a struct, expected one"));
                }
            }
            Value::Object(map)
        }
        DataType::Dictionary(..) => match entry(array, i) {
            Some((key, values)) => value(field, values, key, with_bytes)?,
            None => Value::Null,
        },
        other => return Err(format!("found type {other}, expected text, numbers, lists or structs")),
    })
}

/// Returns the place of element `i` in the values of its dictionary, and the values.
#[allow(clippy::useless_conversion, clippy::unnecessary_fallible_conversions)]
fn entry(array: &dyn Array, i: usize) -> Option<(usize, &dyn Array)> {
    let dictionary = array.as_any_dictionary_opt()?;
    let keys = dictionary.keys();
    let key = downcast_integer_array!(keys => usize::try_from(keys.value(i)).ok(), _ => None)?;
    Some((key, dictionary.values().as_ref()))
}

/// Returns a number as JSON. NaN is a missing value, as in pandas.
fn number(x: f64) -> RowResult<Value> {
    match serde_json::Number::from_f64(x) {
        None if !x.is_nan() => Err(format!("found {x}, expected finite numbers")),
        number => Ok(number.map_or(Value::Null, Value::Number)),
    }
}

/// Returns the number that has the shortest decimal digits of `x`.
fn digits(x: f32) -> f64 {
    x.to_string().parse().unwrap_or(x.into())
}

/// Works like [`digits`] for a number of 16 bits, which at most 5 digits identify. Whole numbers keep all digits.
fn half(x: <Float16Type as ArrowPrimitiveType>::Native) -> f64 {
    type Half = <Float16Type as ArrowPrimitiveType>::Native;
    let exact = x.to_f64();
    let mut rounded = (0..5).filter_map(|digits| format!("{exact:.digits$e}").parse::<f64>().ok());
    let shortest = rounded.find(|short| Half::from_f64(*short) == x);
    shortest.filter(|_| exact.fract() != 0.0).unwrap_or(exact)
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

fn list(array: &dyn Array, i: usize) -> Option<(&Field, ArrayRef)> {
    match array.data_type() {
        DataType::List(of) => Some((of, array.as_list::<i32>().value(i))),
        DataType::LargeList(of) => Some((of, array.as_list::<i64>().value(i))),
        DataType::FixedSizeList(of, _) => Some((of, array.as_fixed_size_list().value(i))),
        _ => None,
    }
}

/// Returns the images of element `i` of an image column. The element is a list of images or a single image.
pub(crate) fn images(field: &Field, array: &dyn Array, i: usize) -> RowResult<Vec<RawImage>> {
    match list(array, i) {
        Some((of, list)) => {
            (0..list.len()).map(|j| image(of, &list, j)).collect::<RowResult<Vec<_>>>().map(|all| all.concat())
        }
        None => image(field, array, i),
    }
}

fn image(field: &Field, array: &dyn Array, i: usize) -> RowResult<Vec<RawImage>> {
    if is_null(array, i) {
        return Ok(vec![RawImage::default()]);
    }
    if let Some(bytes) = bytes(array, i) {
        return Ok(vec![RawImage { bytes: Some(bytes.into()), ..RawImage::default() }]);
    }
    let found = RawImage::all(&value(field, array, i, false)?);
    let mut found = found.map_err(|(found, expected)| format!("found {found}, expected {expected}"))?;
    let held = array.as_struct_opt().and_then(|group| group.column_by_name("bytes")).filter(|c| !is_null(c, i));
    if let (Some(column), Some(image)) = (held, found.first_mut()) {
        let wrong = || format!("`bytes` has type {}, expected binary", column.data_type());
        image.bytes = Some(bytes(column, i).ok_or_else(wrong)?.into());
    }
    Ok(found)
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
            match value(field, column, i, false) {
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
                let found = images(field, column, i).map_err(wrong)?;
                row_images = row_images.filter(|_| !has_none && found.is_empty()).or(Some(found));
            }
        } else if first || !map.contains_key(ours) {
            map.insert(ours.to_owned(), value(field, column, i, ours != "extra_info").map_err(wrong)?);
        }
    }
    Ok((map, row_images))
}

/// Returns the rows of a batch as JSON, without the values that have no form in JSON.
pub(crate) fn rows(batch: &RecordBatch) -> Vec<Map<String, Value>> {
    let schema = batch.schema();
    let columns = || schema.fields().iter().zip(batch.columns());
    let value = |i, (field, column): (&Arc<Field>, &ArrayRef)| {
        Some((field.name().clone(), value(field, column, i, false).ok()?))
    };
    (0..batch.num_rows()).map(|i| columns().filter_map(|column| value(i, column)).collect()).collect()
}

/// Returns the names of the columns with images in the rows of a batch.
pub(crate) fn image_columns(batch: &RecordBatch) -> Vec<String> {
    let is_image = |field: &Field, column: &ArrayRef, i| {
        let found = if is_null(column, i) { Ok(Vec::new()) } else { images(field, column, i) };
        found.is_ok_and(|found| !found.is_empty() && found.iter().all(RawImage::is_image))
    };
    let schema = batch.schema();
    let columns = schema.fields().iter().zip(batch.columns());
    let found = columns.filter(|(field, column)| (0..batch.num_rows()).any(|i| is_image(field, column, i)));
    found.map(|(field, _)| field.name().clone()).collect()
}
