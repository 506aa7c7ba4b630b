//! Config keys of data sets and of the servers that answer requests about their rows.

use std::path::PathBuf;

use super::{Rule, Safe, Secret, Source};

choice! {
    /// File format of rows.
    pub enum DataType {
        /// Apache Parquet.
        Parquet = "parquet",
        /// One JSON object a line.
        Jsonl = "jsonl",
        /// One JSON object a line, or one array of objects: what the file begins with says which.
        Json = "json",
    }
}

settings! {
    /// What the columns of one's own rows are; those of the known forms need no word.
    pub struct ColumnsConfig {
        /// Names the row.
        id: Option<String> = None;
        /// The conversation: a list of role and content, or of from and value.
        messages: Option<String> = None;
        /// The question, where there is no conversation.
        question: Option<String> = None;
        /// The right answer.
        answer: Option<String> = None;
        /// The pictures: bytes, paths, or lists of them.
        images: Option<String> = None;
        /// Where the row is from.
        data_source: Option<String> = None;
    }
}

settings! {
    /// A data set: a file of rows, a folder of them, or a pattern.
    pub struct DatasetConfig or path {
        /// The file, folder or pattern, or a repository's name; its stem names the data set.
        path: PathBuf = PathBuf::new(), rule: Rule::NotEmpty, name: "lmms-engine datasets[].path";
        /// Image urls of the rows are relative to this folder or zip file and may not leave it; null takes the data set's folder.
        data_folder: Option<PathBuf> = None, name: "lmms-engine datasets[].data_folder";
        /// The format of files whose ending does not say it.
        data_type: DataType = DataType::Parquet, name: "lmms-engine datasets[].data_type", published: "parquet";
        /// Share of this data set among all, relative to the others.
        weight: f64 = 1.0, rule: Rule::Above(0.0);
        /// Take the first so many rows only.
        limit: Option<usize> = None, rule: Rule::AtLeast(1.0);
        /// What the columns are, where they have names of their own.
        columns: ColumnsConfig = ColumnsConfig::default();
    }
}

/// The paths of data sets, under the key that lists them.
pub(super) fn rows_of<'a>(key: &str, entries: &'a mut [DatasetConfig]) -> impl Iterator<Item = (String, Source<'a>)> {
    let path =
        move |(i, entry): (usize, &'a mut DatasetConfig)| (format!("{key}[{i}].path"), Source::Rows(&mut entry.path));
    entries.iter_mut().enumerate().map(path)
}

/// The path of a model, under its key.
pub(super) fn model_of<'a>(key: &str, model: &'a mut Option<PathBuf>) -> impl Iterator<Item = (String, Source<'a>)> {
    model.iter_mut().map(move |path| (key.to_owned(), Source::Model(path)))
}

settings! {
    /// An OpenAI-compatible server.
    pub struct EndpointConfig {
        /// Its address up to /v1, or several to share the work.
        base_url: Vec<String> = Vec::new(), rule: Rule::NotEmpty, safe: Safe::Yes,
            name: "OAI_BASE_URL";
        /// The name it serves the model under.
        model: String = String::new(), rule: Rule::NotEmpty, name: "MODEL_VERSION", published: "qwen3-vl";
        /// Sent as a bearer token.
        api_key: Secret = Secret::default(), safe: Safe::Yes, name: "OAI_API_KEY";
        /// Longest answer asked for.
        max_tokens: usize = 16384, rule: Rule::AtLeast(1.0), published: "16384";
        /// Sampling temperature asked for.
        temperature: f64 = 1.0, rule: Rule::AtLeast(0.0), published: "1.0";
        /// Requests in flight at once.
        concurrency: usize = 16, rule: Rule::AtLeast(1.0), safe: Safe::Yes, published: "half the processors";
        /// A request is given up after this long.
        timeout_s: f64 = 600.0, rule: Rule::Above(0.0), safe: Safe::Yes, published: "6000";
        /// Repetitions of a failed request, with growing random pauses.
        max_retries: usize = 3, safe: Safe::Yes, published: "3 attempts";
    }
}
