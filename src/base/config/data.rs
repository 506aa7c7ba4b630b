//! Config keys of data sets and of the servers that answer requests about their rows.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::{Rule, Safe, Secret, Setting, Source};

choice! {
    /// File format of rows.
    pub enum DataType {
        /// Apache Parquet.
        Parquet = "parquet",
        /// One JSON object per line.
        Jsonl = "jsonl",
        /// One JSON object per line, or one array of objects. The first characters of the file decide which.
        Json = "json",
        /// Arrow IPC file or stream, as `datasets` writes them.
        Arrow = "arrow",
        /// Comma-separated values; the first record names the columns.
        Csv = "csv",
        /// Tab-separated values; the first record names the columns.
        Tsv = "tsv",
        /// WebDataset: a tar file whose members with the same name up to the first dot are a row.
        Tar = "tar",
    }
}

/// Value of `prompt` that adds the options of a row to its question.
const MULTIPLE_CHOICE: &str = "multiple_choice";

settings! {
    /// Column names of your own rows. Not needed for the row formats that omr recognises. `NAME: ''` says that the
    /// column NAME of the rows is not needed.
    pub struct ColumnsConfig {
        /// Column with the id of the row.
        id: Option<String> = None;
        /// Column with the conversation: a list of messages with the keys role and content, or from and value.
        messages: Option<String> = None;
        /// Column with the question, for rows without a conversation.
        question: Option<String> = None;
        /// Column with the response that is trained on.
        response: Option<String> = None, name: "LLaMA-Factory columns.response";
        /// Column with the reasoning that precedes the response.
        thinking: Option<String> = None;
        /// Column with the correct answer.
        answer: Option<String> = None;
        /// Column with several right answers: a list. Each of them counts as right, and SFT trains on the most frequent.
        answers: Option<String> = None;
        /// Column with the place of the right option, from 0, for prompt=multiple_choice. An empty text = the answers
        /// are letters or texts, never places.
        answer_index: Option<String> = None;
        /// Column with the options, for prompt=multiple_choice.
        choices: Option<String> = None;
        /// Column with the images: bytes, paths, or lists of them. An empty text = use the rows without images.
        images: Option<String> = None;
        /// Column with the name of the source that the row comes from.
        data_source: Option<String> = None;
        /// Column with the reward type of the row, such as numeric. null = reward_type, or extra_info.reward_type.
        reward_type: Option<String> = None;
        /// Column with the domain of the row, for metrics by domain. null = domain or ability.
        domain: Option<String> = None;
        /// Columns that are not needed. `columns: {NAME: ''}` adds NAME to the list. A column that looks like a part of
        /// the question or of the answer and is not read is an error otherwise.
        unused: Vec<String> = Vec::new();
    }
}

/// Moves each `NAME: ''` in the groups `columns` of `tree` to their lists `unused`, if NAME is no key of the group.
pub(super) fn unused_columns(tree: &mut Value) {
    if let Some(Value::Object(columns)) = tree.get_mut("columns") {
        let known = ColumnsConfig::default().write();
        let is_unused = |(name, value): &(String, Value)| value == "" && known.get(name).is_none();
        let (unused, kept): (Vec<_>, Vec<_>) = std::mem::take(columns).into_iter().partition(is_unused);
        columns.extend(kept);
        // A list of another type is reported when the key is read.
        if let Value::Array(list) = columns.entry("unused").or_insert_with(|| json!([])) {
            list.extend(unused.into_iter().map(|(name, _)| Value::String(name)));
        }
    }
    match tree {
        Value::Array(list) => list.iter_mut().for_each(unused_columns),
        Value::Object(map) => map.values_mut().for_each(unused_columns),
        _ => {}
    }
}

settings! {
    /// A data set: a file of rows, a folder of such files, a file name pattern, or a repository of the Hugging Face hub.
    pub struct DatasetConfig or path {
        /// File, folder, file name pattern, or name of a Hugging Face repository. The data set is named after the last
        /// part of the path, without the file extension.
        path: PathBuf = PathBuf::new(), rule: Rule::NotEmpty, name: "lmms-engine datasets[].path";
        /// Configurations (subsets) of a Hugging Face repository, or names of files or folders inside `path`: a name, a
        /// pattern such as `mmk12*`, or a list of them. '*' = all. [] = the default.
        name: Vec<String> = Vec::new(), name: "datasets.load_dataset(name=)";
        /// Split of a Hugging Face repository or of a folder, such as train. null = the only split.
        split: Option<String> = None, rule: Rule::NotEmpty,
            name: "datasets.load_dataset(split=); TRL dataset_train_split";
        /// Branch, tag or commit of a Hugging Face repository. null = main.
        revision: Option<String> = None, rule: Rule::NotEmpty, name: "datasets.load_dataset(revision=)";
        /// Folder or zip file that relative image paths of the rows refer to. The folder of the rows and the working
        /// directory are searched after it; paths outside of these are refused. null = only the latter.
        data_folder: Option<PathBuf> = None, name: "lmms-engine datasets[].data_folder; LLaMA-Factory media_dir";
        /// Format of files whose extension does not show it.
        data_type: DataType = DataType::Parquet, name: "lmms-engine datasets[].data_type", published: "parquet";
        /// Number of times that each row is used. With a fraction, such as 2.5, that share of the rows is used once
        /// more.
        weight: f64 = 1.0, rule: Rule::Above(0.0), name: "LLaMA-Factory interleave_probs (times that a row is used)";
        /// Use only the first N rows. null = all rows.
        limit: Option<usize> = None, rule: Rule::AtLeast(1.0), name: "LLaMA-Factory max_samples";
        /// Jinja template that makes the question from the columns of a row, such as `{{ question }} Answer with a
        /// number.` `<image>` marks the place of an image; without it, images come first. The value multiple_choice
        /// appends a line `A. TEXT` to the question for each entry of the column `choices` or `options`, and the answer
        /// becomes a letter. null = the question as the row has it.
        prompt: Option<String> = None, rule: Rule::NotEmpty, name: "EasyR1 format_prompt";
        /// Column with the correct answer, or a Jinja template that makes it. null = the label as the row has it.
        gold: Option<String> = None, rule: Rule::NotEmpty;
        /// System prompt of rows that have none. null = the default of the chat template.
        system_prompt: Option<String> = None, name: "ms-swift --system; LLaMA-Factory default_system";
        /// Column names, if they differ from those that omr recognises.
        columns: ColumnsConfig = ColumnsConfig::default();
    }
}

impl DatasetConfig {
    /// Returns true if the options of a row are added to its question.
    pub fn is_multiple_choice(&self) -> bool {
        self.prompt.as_deref() == Some(MULTIPLE_CHOICE)
    }
}

/// Returns the paths of data sets and of their images. `key` is the key that lists them.
pub(super) fn rows_of<'a>(key: &str, entries: &'a mut [DatasetConfig]) -> impl Iterator<Item = (String, Source<'a>)> {
    let paths = move |(i, entry): (usize, &'a mut DatasetConfig)| {
        // `ORG/NAME@REVISION` is the path of a repository at a revision.
        if let Some(revision) = entry.revision.as_ref().filter(|_| !entry.path.exists()) {
            let path = entry.path.display().to_string();
            entry.path = format!("{}@{revision}", path.split('@').next().unwrap_or_default()).into();
        }
        let rows = (format!("{key}[{i}].path"), Source::Rows(&mut entry.path));
        [rows].into_iter().chain(files_of(format!("{key}[{i}].data_folder"), &mut entry.data_folder))
    };
    entries.iter_mut().enumerate().flat_map(paths)
}

/// Returns the path of a file or a folder that must exist, with its key.
pub(super) fn files_of<'a>(
    key: impl Into<String>,
    path: &'a mut Option<PathBuf>,
) -> impl Iterator<Item = (String, Source<'a>)> {
    let key = key.into();
    path.iter_mut().map(move |path| (key.clone(), Source::Files(path)))
}

/// Returns the path of a model, with its key.
pub(super) fn model_of<'a>(key: &str, model: &'a mut Option<PathBuf>) -> impl Iterator<Item = (String, Source<'a>)> {
    model.iter_mut().map(move |path| (key.to_owned(), Source::Model(path)))
}

settings! {
    /// An OpenAI-compatible server.
    pub struct EndpointConfig {
        /// Address of the server, up to and including /v1. Several addresses share the requests.
        base_url: Vec<String> = Vec::new(), rule: Rule::NotEmpty, safe: Safe::Yes,
            name: "OAI_BASE_URL";
        /// Name of the model on the server.
        model: String = String::new(), rule: Rule::NotEmpty, name: "MODEL_VERSION", published: "qwen3-vl";
        /// API key, sent as a bearer token.
        api_key: Secret = Secret::default(), safe: Safe::Yes, name: "OAI_API_KEY";
        /// Maximum number of tokens per answer.
        max_tokens: usize = 16384, rule: Rule::TOKENS, published: "16384";
        /// Sampling temperature.
        temperature: f64 = 1.0, rule: Rule::AtLeast(0.0), published: "1.0";
        /// Maximum number of requests in flight at once.
        concurrency: usize = 16, rule: Rule::SEQUENCES, safe: Safe::Yes, published: "half the processors";
        /// Time limit of a request, in seconds.
        timeout_s: f64 = 600.0, rule: Rule::Above(0.0), safe: Safe::Yes, published: "6000";
        /// Number of times that a failed request is repeated, with growing random pauses.
        max_retries: usize = 3, safe: Safe::Yes, published: "3 attempts";
    }
}
