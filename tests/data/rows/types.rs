//! Tests that every value keeps its type: files that pandas, polars, pyarrow and `datasets` wrote (types.zip), values at
//! the limits of each type, and fields that nothing reads.

use std::fs;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use arrow_array::types::Float16Type;
use arrow_array::{
    Array, ArrayRef, ArrowPrimitiveType, BooleanArray, Date32Array, Decimal128Array, Decimal256Array,
    DurationSecondArray, FixedSizeBinaryArray, Float16Array, Float32Array, Float64Array, Int8Array, Int64Array,
    RecordBatch, StringViewArray, TimestampMicrosecondArray, UInt64Array,
};
use arrow_buffer::i256;
use arrow_ipc::writer::{FileWriter, StreamWriter};
use omr_base::config::{ColumnsConfig, DatasetConfig};
use omr_data::rows::read::{self, RowFile, entry};
use omr_data::rows::{ReadCounts, Row, text_of};
use omr_data::text::Part;
use serde_json::{Value, json};

use super::formats::{decoded, extracted, list_of, parquet, png, rows, structs, texts};

fn made() -> &'static Path {
    static DIR: OnceLock<tempfile::TempDir> = OnceLock::new();
    extracted(&DIR, include_bytes!("types.zip"))
}

fn labels(path: &Path) -> Result<Vec<String>, String> {
    let found = read::read(&entry(path)).map_err(|e| e.to_string())?;
    Ok(found.into_iter().map(|row| row.ground_truth.unwrap_or_default()).collect())
}

fn turns(row: &Row) -> Vec<(String, String)> {
    row.messages.iter().map(|message| (message.role.clone(), text_of(message))).collect()
}

/// Reads JSON rows, or returns the error.
fn json_rows(rows: &[Value]) -> Result<Vec<Row>, String> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.png"), png(4)).unwrap();
    let lines: Vec<String> = rows.iter().map(Value::to_string).collect();
    fs::write(dir.path().join("rows.jsonl"), lines.join("\n")).unwrap();
    let found = read::read(&entry(dir.path().join("rows.jsonl"))).map_err(|e| e.to_string())?;
    // The images lie in the folder.
    found.into_iter().map(|row| row.embedded().map_err(|bad| bad.error.to_string())).collect()
}

#[test]
fn columns_of_json_are_parsed_at_any_depth() {
    for name in ["messages.parquet", "saved.arrow"] {
        let found = rows(&entry(made().join(name)));
        let asked: Vec<String> = found.iter().map(|row| text_of(&row.messages[0])).collect();
        assert_eq!(asked, ["What is 2+3?", "What is 1+3?"], "{name}");
        assert!(found.iter().all(|row| !text_of(&row.messages[1]).contains(['"', '['])), "{name}");
    }
    let found = labels(&made().join("answers.parquet")).unwrap();
    assert!(found.contains(&"4".to_owned()) && found.contains(&"Paris".to_owned()), "{found:?}");
}

#[test]
fn a_dictionary_that_is_replaced_or_extended_belongs_to_the_batches_after_it() {
    let label = |name: &str| labels(&made().join(format!("dictionary_{name}.arrow"))).unwrap();
    assert_eq!(label("rows"), ["red", "green", "blue", "yellow"]);
    assert_eq!(label("delta"), ["red", "green", "blue", "yellow"]);
    assert_eq!(label("pandas"), ["left", "right", "up", "down"]);
    let nested = rows(&entry(made().join("dictionary_nested.arrow")));
    let roles: Vec<Vec<String>> =
        nested.iter().map(|row| turns(row).into_iter().map(|turn| turn.0).collect()).collect();
    assert_eq!(roles, [vec!["user", "assistant"], vec!["system", "user", "assistant"]]);
}

#[test]
fn arrow_files_are_read_by_their_footer_and_compressed_buffers_are_read() {
    for (name, want) in [
        ("rows", vec!["red", "green", "red"]),
        ("lz4", vec!["red", "green", "red"]),
        ("plain", vec!["1", "2"]),
        ("without-end", vec!["5", "4"]),
        ("without-schema", vec!["5", "4"]),
        ("zstd", vec!["5", "4"]),
        ("lz4-pyarrow", vec!["5", "4"]),
    ] {
        let found = labels(&made().join(format!("file_{name}.arrow")));
        assert!(found.as_ref().is_ok_and(|found| *found == want), "{name}: {found:?}");
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rows.arrow");
    let file = fs::read(made().join("file_plain.arrow")).unwrap();
    for (bytes, part) in [
        (file[..file.len() - 12].to_vec(), "its footer is missing"),
        ([&file[..], &file].concat(), "were several files joined?"),
    ] {
        fs::write(&path, bytes).unwrap();
        let error = labels(&path).unwrap_err();
        assert!(error.contains("rows.arrow") && error.contains(part), "{error}");
    }
    // A damaged file is an error and no panic, whatever its bytes are.
    for name in ["file_lz4", "file_zstd", "dictionary_delta"] {
        let whole = fs::read(made().join(name).with_extension("arrow")).unwrap();
        for at in (0..whole.len()).step_by(11) {
            let mut changed = whole.clone();
            changed[at] ^= 0xa5;
            fs::write(&path, changed).unwrap();
            let _ = labels(&path);
        }
    }
}

#[test]
fn parquet_files_of_each_codec_are_read_or_the_codec_is_named() {
    for codec in ["none", "snappy", "gzip", "zstd", "lz4"] {
        assert!(labels(&made().join(format!("{codec}.parquet"))).is_ok(), "{codec}");
    }
    let error = labels(&made().join("brotli.parquet")).unwrap_err();
    assert!(error.contains("BROTLI") && error.contains("write the file again"), "{error}");
}

#[test]
fn two_columns_of_one_name_are_refused_in_every_format() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("rows.csv"), "problem,answer,answer\nq,5,6\n").unwrap();
    fs::write(at("rows.jsonl"), r#"{"problem": "q", "answer": 5, "answer": 6}"#).unwrap();
    for path in [at("rows.csv"), at("rows.jsonl"), made().join("twice.parquet")] {
        let error = labels(&path).unwrap_err();
        assert!(error.contains("two ") && error.contains("`answer`"), "{error}");
    }
}

#[test]
fn integers_keep_their_digits() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rows.jsonl");
    let numbers =
        ["9007199254740993", "123456789012345678901234567890", "18446744073709551616", "-9223372036854775809"];
    let line = |n: &&str| format!("{{\"problem\": \"q\", \"answer\": {n}}}\n");
    fs::write(&path, numbers.iter().map(line).collect::<String>()).unwrap();
    assert_eq!(labels(&path).unwrap(), numbers);
    let inside = format!("{{\"prompt\": \"q\", \"reward_model\": \"{{\\\"ground_truth\\\": {}}}\"}}", numbers[1]);
    fs::write(&path, inside).unwrap();
    assert_eq!(labels(&path).unwrap(), [numbers[1]]);
    assert_eq!(labels(&made().join("uint64.parquet")).unwrap(), ["18446744073709551615", "7"]);
    assert_eq!(labels(&made().join("decimal.parquet")).unwrap(), ["3.14", "19.90"]);
}

/// Writes one column as the label of rows, in Parquet and Arrow. Returns the labels of both or the errors.
fn typed(column: ArrayRef) -> [Result<Vec<String>, String>; 3] {
    let dir = tempfile::tempdir().unwrap();
    let asked = texts(&vec!["q"; column.len()]);
    let batch = RecordBatch::try_from_iter([("problem", asked), ("answer", column)]).unwrap();
    let at = |name: &str| dir.path().join(name);
    let mut file = FileWriter::try_new(fs::File::create(at("file.arrow")).unwrap(), &batch.schema()).unwrap();
    let mut stream = StreamWriter::try_new(fs::File::create(at("stream.arrow")).unwrap(), &batch.schema()).unwrap();
    file.write(&batch).and_then(|()| file.finish()).unwrap();
    stream.write(&batch).and_then(|()| stream.finish()).unwrap();
    parquet(&at("rows.parquet"), vec![("problem", batch.column(0).clone()), ("answer", batch.column(1).clone())]);
    ["file.arrow", "stream.arrow", "rows.parquet"].map(|name| labels(&at(name)))
}

#[test]
fn values_at_the_limits_of_each_type_are_right_or_refused() {
    type Half = <Float16Type as ArrowPrimitiveType>::Native;
    let halves = [0.1, 65504.0, 1.0].map(Half::from_f64);
    let decimal = Decimal128Array::from(vec![i128::pow(10, 37), -314]).with_precision_and_scale(38, 2).unwrap();
    let long = Decimal256Array::from(vec![i256::from_string(&"9".repeat(76)).unwrap()])
        .with_precision_and_scale(76, 0)
        .unwrap();
    let nines = "9".repeat(76);
    let right: [(ArrayRef, &[&str]); 10] = [
        (Arc::new(Int8Array::from(vec![i8::MIN, i8::MAX])), &["-128", "127"]),
        (Arc::new(Int64Array::from(vec![i64::MIN, i64::MAX])), &["-9223372036854775808", "9223372036854775807"]),
        (Arc::new(UInt64Array::from(vec![u64::MAX, 0])), &["18446744073709551615", "0"]),
        (Arc::new(Float16Array::from(halves.to_vec())), &["0.1", "65504.0", "1.0"]),
        (Arc::new(Float32Array::from(vec![0.1, 16777216.0, 3.4028235e38])), &["0.1", "16777216.0", "3.4028235e+38"]),
        (Arc::new(Float64Array::from(vec![0.1, f64::NAN])), &["0.1", ""]),
        (Arc::new(BooleanArray::from(vec![true, false])), &["true", "false"]),
        (
            Arc::new(StringViewArray::from(vec!["a", "a text of more than twelve bytes"])),
            &["a", "a text of more than twelve bytes"],
        ),
        (Arc::new(long), &[&nines]),
        (Arc::new(decimal), &["100000000000000000000000000000000000.00", "-3.14"]),
    ];
    for (column, want) in right {
        let kind = column.data_type().clone();
        for found in typed(column) {
            assert!(found.as_ref().is_ok_and(|found| found == want), "{kind}: {found:?}");
        }
    }
    let refused: [ArrayRef; 5] = [
        Arc::new(Float64Array::from(vec![f64::INFINITY])),
        Arc::new(Date32Array::from(vec![1])),
        Arc::new(TimestampMicrosecondArray::from(vec![1])),
        Arc::new(DurationSecondArray::from(vec![1])),
        Arc::new(FixedSizeBinaryArray::try_from_iter([[1u8, 2]].iter()).unwrap()),
    ];
    for column in refused {
        let kind = column.data_type().clone();
        for found in typed(column) {
            let error = found.unwrap_err();
            assert!(error.contains("row 1: column `answer`: found"), "{kind}: {error}");
        }
    }
}

/// Returns a row of two questions with every place where a field can stand, and the names of these places.
fn places() -> (Value, [&'static str; 7]) {
    let image = json!({"type": "image", "image": {"path": "a.png"}});
    let parts = json!([image, {"type": "text", "text": "See."}]);
    let turn = |role: &str, content: &Value| json!({"role": role, "content": content});
    let messages = json!([
        turn("user", &parts),
        turn("assistant", &"yes".into()),
        turn("user", &"And?".into()),
        turn("assistant", &"no".into())
    ]);
    let names = [
        "/messages/0",
        "/messages/1",
        "/messages/2",
        "/messages/3",
        "/messages/0/content/0",
        "/messages/0/content/1",
        "/messages/0/content/0/image",
    ];
    (json!({"messages": messages}), names)
}

#[test]
fn an_unknown_field_with_a_value_is_refused_wherever_it_stands() {
    let (row, names) = places();
    assert_eq!(decoded(&json_rows(std::slice::from_ref(&row)).unwrap()[0]), [4]);
    let with = |place: &str, name: &str, value: &Value| {
        let mut row = row.clone();
        row.pointer_mut(place).unwrap()[name] = value.clone();
        row
    };
    for place in names {
        for value in [json!("x"), json!(1), json!(false), json!([1]), json!({"a": "b"})] {
            let error = json_rows(&[with(place, "novel", &value)]).unwrap_err();
            assert!(error.contains("novel`, which is not read") && error.contains("`columns: {novel: ''}`"), "{error}");
        }
        for (name, value) in [
            ("novel", json!(null)),
            ("novel", json!("")),
            ("novel", json!([])),
            ("id", json!(3)),
            ("timestamp", json!("12:00")),
        ] {
            json_rows(&[with(place, name, &value)]).unwrap_or_else(|error| panic!("{place} {name}: {error}"));
        }
    }
    // One error lists all fields of a row, and its line ignores them.
    let mut several = with(names[0], "novel", &json!(1));
    several["messages"][3]["other"] = json!("x");
    let error = json_rows(&[several.clone()]).unwrap_err();
    let parts = [
        "a value in `messages[0].novel`, `messages[3].other`, which are not read",
        "{novel: '', other: ''}` in the entry ignores them",
    ];
    assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.png"), png(1)).unwrap();
    fs::write(dir.path().join("rows.jsonl"), several.to_string()).unwrap();
    let unused = ["novel", "other"].map(str::to_owned).to_vec();
    let columns = ColumnsConfig { unused, ..ColumnsConfig::default() };
    read::read(&DatasetConfig { columns, ..entry(dir.path().join("rows.jsonl")) }).unwrap();
    for name in ["image_url", "image"] {
        let part = json!({"type": name, name: {"url": "a.png", "total_pixels": 3136}});
        let error = json_rows(&[json!({"messages": [{"role": "user", "content": [part]}]})]).unwrap_err();
        assert!(error.contains(&format!("{name}.total_pixels`")) && error.contains("image_max_pixels"), "{error}");
    }
}

#[test]
fn an_unknown_field_of_the_second_message_is_refused_in_parquet_and_arrow() {
    let novel: ArrayRef = Arc::new(arrow_array::StringArray::from(vec![None, Some("x")]));
    let message =
        structs(vec![("role", texts(&["user", "assistant"])), ("content", texts(&["q", "a"])), ("novel", novel)]);
    let batch = RecordBatch::try_from_iter([("messages", list_of(message, &[2]))]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    parquet(&dir.path().join("rows.parquet"), vec![("messages", batch.column(0).clone())]);
    let mut stream =
        StreamWriter::try_new(fs::File::create(dir.path().join("rows.arrow")).unwrap(), &batch.schema()).unwrap();
    stream.write(&batch).and_then(|()| stream.finish()).unwrap();
    for name in ["rows.parquet", "rows.arrow"] {
        let error = labels(&dir.path().join(name)).unwrap_err();
        assert!(error.contains("`messages[1].novel`"), "{error}");
    }
}

#[test]
fn masks_of_a_turn_are_read_under_the_names_of_other_systems() {
    for (name, value) in
        [("loss_mask", json!(0)), ("train", json!(false)), ("training", json!(false)), ("trainable", json!(0))]
    {
        let turns = json!([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", name: value}]);
        assert!(json_rows(&[json!({"messages": turns})]).unwrap()[0].messages[1].masked, "{name}");
    }
}

#[test]
fn rows_of_agents_are_refused() {
    let row = |more: Value| {
        let mut row = json!({"prompt": [{"role": "user", "content": "2+3?"}], "reward_model": {"ground_truth": "5"}});
        row.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json_rows(&[row])
    };
    for more in [json!({"agent_name": "tool_agent"}), json!({"extra_info": {"interaction_kwargs": {"name": "gsm8k"}}})]
    {
        assert!(row(more).unwrap_err().contains("no agents"));
    }
    row(json!({"agent_name": "single_turn_agent", "extra_info": {"interaction_kwargs": {}}})).unwrap();
}

#[test]
fn a_text_that_no_message_contains_is_a_warning() {
    let warnings = |rows: &[Value]| {
        let dir = tempfile::tempdir().unwrap();
        let lines: Vec<String> = rows.iter().map(Value::to_string).collect();
        fs::write(dir.path().join("rows.jsonl"), lines.join("\n")).unwrap();
        ReadCounts::of(&RowFile::open(&[entry(dir.path().join("rows.jsonl"))]).unwrap()).unwrap().warnings()
    };
    let story = "Ada has a cat that is called Tom.";
    for name in ["passage", "table", "input", "anything"] {
        let found = warnings(&[json!({name: story, "question": "What is the cat called?", "answer": "Tom"})]);
        assert!(
            found.len() == 1 && found[0].contains(&format!("{{{{ {name} }}}}\\n\\n{{{{ question }}}}")),
            "{found:?}"
        );
        assert!(found[0].contains(&format!("columns: {{{name}: ''}}")), "{found:?}");
    }
    let said = json!({"passage": story, "messages": [{"role": "user", "content": format!("{story} Who?")}, {"role": "assistant", "content": "Tom"}]});
    let same = |i: usize| json!({"question": format!("{i}?"), "answer": i, "licence": "Creative Commons Attribution, version 4.0", "topic": "two words"});
    for rows in [vec![said], vec![same(1), same(2)]] {
        assert!(warnings(&rows).is_empty(), "{:?}", warnings(&rows));
    }
}

#[test]
fn messages_are_read_from_texts_in_json_and_as_python_writes_them() {
    let json = r#"[{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "It's 4"}]"#;
    let python = r#"[{'role': 'user', 'content': '2+2?'}, {'role': 'assistant', 'content': "It's 4"}]"#;
    for text in [json, python] {
        let found = json_rows(&[json!({"messages": text})]).unwrap();
        assert_eq!(text_of(&found[0].messages[1]), "It's 4");
        let found = json_rows(&[json!({"prompt": text.replace("assistant", "user")})]).unwrap();
        assert_eq!(found[0].messages.len(), 2);
        let cut = json_rows(&[json!({"prompt": &text[..text.len() - 3]})]).unwrap_err();
        assert!(cut.contains("begins like a list and is none"), "{cut}");
    }
    let found = json_rows(&[json!({"question": "q", "answers": "['a', 'a', 'b']", "image": "['a.png']"})]).unwrap();
    assert_eq!((found[0].ground_truth.as_deref(), decoded(&found[0])), (Some("a"), vec![4]));
    assert!(json_rows(&[json!({"question": "q", "answers": "['a', 'b"})]).unwrap_err().contains("`answers`"));
    let found = json_rows(&[json!({"prompt": "q", "reward_model": "{'ground_truth': '5', 'style': 'rule'}"})]).unwrap();
    assert_eq!(found[0].ground_truth.as_deref(), Some("5"));
    // Other texts stay texts.
    for text in ["[{\"a\": 1}] What is this?", "{'a': 1}", "[0, 1]"] {
        assert_eq!(text_of(&json_rows(&[json!({"question": text})]).unwrap()[0].messages[0]), text);
    }
}

#[test]
fn a_mark_in_a_text_beside_parts_with_images_is_text() {
    let asked = "What does the HTML tag <image> show?";
    let of = |image: Value| json!([image, {"type": "text", "text": asked}]);
    let row = |content: Value| json!({"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": "a"}]});
    let mut column = row(of(json!({"type": "image"})));
    column["images"] = json!(["a.png"]);
    for row in [row(of(json!({"type": "image", "image": "a.png"}))), column] {
        let found = &json_rows(&[row]).unwrap()[0];
        assert_eq!(found.messages[0].content, [Part::Image, Part::Text(asked.to_owned())]);
    }
    let found = rows(&entry(made().join("picture.parquet")));
    assert!(matches!(found[0].messages[0].content[..], [Part::Image, Part::Text(_)]) && found[0].images.len() == 1);
}

#[test]
fn empty_texts_are_no_images_and_base64_needs_no_beginning() {
    use base64::Engine as _;
    let row = |image: Value| json_rows(&[json!({"image": image, "question": "q", "answer": "a"})]);
    for none in [json!(""), json!([""]), json!(null), json!([])] {
        assert!(row(none).unwrap()[0].images.is_empty());
    }
    let bytes = png(7);
    let text = base64::engine::general_purpose::STANDARD.encode(&bytes);
    let url = text.replace('+', "-").replace('/', "_");
    let wrapped =
        text.as_bytes().chunks(76).map(|line| std::str::from_utf8(line).unwrap()).collect::<Vec<_>>().join("\n");
    assert!(text.len() > 200);
    for text in [&text, &url, &wrapped, text.trim_end_matches('=')] {
        assert_eq!(decoded(&row(json!(text)).unwrap()[0]), [7]);
        assert_eq!(decoded(&row(json!(format!("data:image/png;base64,{text}"))).unwrap()[0]), [7]);
    }
    // No message has more than 200 characters of a value.
    let long = "YWJj".repeat(5000);
    let of = |role: &str, kind: &str| json_rows(&[json!({"messages": [{"role": role, "content": [{"type": kind}]}]})]);
    for error in [row(json!(long)), row(json!(format!("{long}.png"))), of(&long, "text"), of("user", &long)]
        .map(Result::unwrap_err)
    {
        assert!(error.chars().count() < 700, "{error}");
    }
}
