//! Runs commands in a pseudo-terminal of 80 columns, and checks what stays on its screen: no progress bar, no line that
//! the terminal has broken, no message of a library. A test waits for output, never for a time.

use std::io::{Read as _, Write as _};
use std::process::{Child, ChildStdout, Command, Stdio};

use super::recipe::CONFIG;
use super::training::Folder;

const COLUMNS: usize = 80;

/// Characters of a bar.
const BAR: [char; 2] = ['━', '╌'];

/// A command in a terminal. `script` of util-linux makes the terminal.
struct Terminal {
    child: Child,
    output: ChildStdout,
    screen: Screen,
}

/// Contents of a terminal, without a limit of lines.
#[derive(Default)]
struct Screen {
    lines: Vec<Vec<char>>,
    column: usize,
    /// Bytes of an escape sequence or of a character that is not complete.
    rest: Vec<u8>,
    /// Lines that were longer than the terminal.
    broken: Vec<String>,
    has_bar: bool,
}

impl Screen {
    fn feed(&mut self, bytes: &[u8]) {
        self.rest.extend(bytes);
        let complete = match std::str::from_utf8(&self.rest) {
            Ok(text) => text.len(),
            Err(error) => error.valid_up_to(),
        };
        let rest = self.rest.split_off(complete);
        let text = String::from_utf8(std::mem::replace(&mut self.rest, rest)).unwrap();
        let mut chars = text.chars().peekable();
        if self.lines.is_empty() {
            self.lines.push(Vec::new());
        }
        while let Some(c) = chars.next() {
            let line = self.lines.last_mut().unwrap();
            match c {
                '\r' => self.column = 0,
                '\n' => self.lines.push(Vec::new()),
                '\x08' => self.column = self.column.saturating_sub(1),
                '\x1b' => {
                    let sequence: String = chars.by_ref().take_while(|c| !c.is_alphabetic()).collect();
                    // The only sequence that does more than colour. The final letter is consumed with it.
                    if sequence == "[2" {
                        line.clear();
                    }
                }
                _ => {
                    if self.column == COLUMNS {
                        self.broken.push(line.iter().collect());
                        self.lines.push(Vec::new());
                        self.column = 0;
                    }
                    let line = self.lines.last_mut().unwrap();
                    line.resize(line.len().max(self.column + 1), ' ');
                    line[self.column] = c;
                    self.column += 1;
                    self.has_bar |= BAR.contains(&c);
                }
            }
        }
    }

    fn text(&self) -> String {
        let lines = self.lines.iter().map(|line| line.iter().collect::<String>().trim_end().to_owned());
        lines.filter(|line| !line.is_empty()).map(|line| line + "\n").collect()
    }
}

impl Terminal {
    fn start(args: &[&str]) -> Terminal {
        let quoted = args.iter().map(|arg| format!(" '{arg}'")).collect::<String>();
        let command = format!("stty cols {COLUMNS} rows 24; exec {}{quoted}", env!("CARGO_BIN_EXE_omr"));
        let mut script = Command::new("script");
        script.args(["-qefc", &command, "/dev/null"]).env("CUDA_VISIBLE_DEVICES", "").env_remove("NO_COLOR");
        let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("script of util-linux");
        let output = child.stdout.take().unwrap();
        Terminal { child, output, screen: Screen::default() }
    }

    /// Reads until `is_there`, and returns false if the output ends before.
    fn until(&mut self, is_there: impl Fn(&Screen) -> bool) -> bool {
        let mut bytes = [0; 4096];
        while !is_there(&self.screen) {
            match self.output.read(&mut bytes).unwrap() {
                0 => return false,
                n => self.screen.feed(&bytes[..n]),
            }
        }
        true
    }

    fn shows(&mut self, part: &str) {
        assert!(self.until(|screen| screen.text().contains(part)), "{part} is not in {}", self.screen.text());
    }

    fn types(&mut self, text: &str) {
        self.child.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Waits for the end, and returns the exit status and what stays on the screen.
    fn end(mut self) -> (i32, String) {
        self.until(|_| false);
        let code = self.child.wait().unwrap().code().unwrap();
        let text = self.screen.text();
        assert!(self.screen.broken.is_empty(), "longer than the terminal: {:?}", self.screen.broken);
        assert!(!text.contains(BAR), "a bar stays: {text}");
        assert!(!text.contains("tracing") && !text.contains('\x1b'), "{text}");
        (code, text)
    }
}

/// Runs a command to its end.
fn shown(args: &[&str]) -> (i32, String) {
    Terminal::start(args).end()
}

/// Starts a training run, stops it with Ctrl-C after its first step, and does so again when it continues.
fn stopped_twice(command: &str, config: &str, out: &str, more: &[&str]) {
    let args = [&[command, config, "--out", out][..], more].concat();
    for start in 0..2 {
        let mut terminal = Terminal::start(&args);
        let is_begun = |screen: &Screen| {
            let steps = screen.lines.last().map(|line| line.iter().collect::<String>()).unwrap_or_default();
            screen.has_bar && steps.starts_with(command) && ["loss ", "reward "].iter().any(|name| steps.contains(name))
        };
        assert!(terminal.until(is_begun), "{}", terminal.screen.text());
        terminal.types("\x03");
        let (code, text) = terminal.end();
        assert_eq!(code, 130, "{text}");
        let stopping = "\nstopping: no new work is started; a second Ctrl-C after 2 s ends it at once\n";
        let end = "error: stopped by a signal; run the same command again to continue\n";
        assert!(text.contains(stopping) && text.ends_with(end), "{text}");
        assert_eq!(text.contains("continuing from step"), start == 1, "{text}");
        // The steps so far are one line, and nothing comes between it and the note about the checkpoint.
        let lines: Vec<&str> = text.lines().collect();
        let at = lines.iter().position(|line| line.starts_with("stopping: ")).unwrap();
        assert!(lines[at + 1].starts_with(&format!("{command} ")) && lines[at + 1].contains(" steps  "), "{text}");
    }
}

#[test]
fn sft_and_rl_leave_no_bar_in_a_terminal_when_they_are_stopped_continued_and_done() {
    let folder = Folder::new();
    let (sft, rl) = (folder.sft(|_| {}), folder.rl(|_| {}));
    stopped_twice("sft", &sft, &folder.at("a"), &["max_steps=1000000", "save_on_stop=true"]);
    stopped_twice("rl", &rl, &folder.at("b"), &["total_training_steps=100000", "save_on_stop=true"]);
    let (code, text) = shown(&["sft", &sft, "--out", &folder.at("c"), "max_steps=3"]);
    let report = format!("report: {}\n", folder.at("c/report.html"));
    assert!(code == 0 && text.contains("\nsft 3/3 steps  loss ") && text.contains(&report), "{text}");
    assert!(text.ends_with(&format!("{}\n", folder.at("c/model"))), "{text}");
}

#[test]
fn a_recipe_fits_a_terminal_and_its_last_commands_can_be_copied() {
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let out = dir.path().join("recipe").to_str().unwrap().to_owned();
    let args = ["recipe", CONFIG, "--out", &out, "sft.max_steps=2", "control.max_steps=1", "rl.total_training_steps=1"];
    // The commands at the end are longer than the terminal, which breaks them without a line end.
    let mut terminal = Terminal::start(&args);
    terminal.until(|_| false);
    let text = terminal.screen.text();
    assert!(terminal.child.wait().unwrap().success() && !text.contains(BAR), "{text}");
    let whole: Vec<&String> = terminal.screen.broken.iter().collect();
    assert!(whole.iter().all(|line| line.starts_with("  /") || !line.starts_with(' ')), "{whole:?}");
    assert!(text.contains("to talk to it in a browser:\n  /"), "{text}");
    for stage in ["distill", "sft", "control", "rl", "eval"] {
        assert!(text.lines().any(|line| line.starts_with(&format!("{stage} "))), "{stage}: {text}");
    }
    assert!(!text.contains("ids are shared"), "{text}");
}

#[test]
fn generate_chat_serve_and_watch_begin_with_what_was_asked_for() {
    let folder = Folder::new();
    let sft = folder.sft(|_| {});
    let (base, run) = (folder.at("base"), folder.at("run"));
    assert_eq!(shown(&["sft", &sft, "--out", &run, "max_steps=1"]).0, 0);
    let (code, text) = shown(&["generate", "--model", &base, "--prompt", "How many?", "max_tokens=2"]);
    assert!(code == 0 && text.lines().count() <= 1, "{text}");
    let mut chat = Terminal::start(&["chat", &base, "max_tokens=2"]);
    let asks = |screen: &Screen, times| screen.lines.iter().filter(|line| line.first() == Some(&'>')).count() == times;
    assert!(chat.until(|screen| asks(screen, 1)), "{}", chat.screen.text());
    chat.types("How many?\n");
    assert!(chat.until(|screen| asks(screen, 2)), "{}", chat.screen.text());
    chat.types("/exit\n");
    let (code, text) = chat.end();
    assert!(code == 0 && !text.contains("memory"), "{text}");
    for (args, ready) in [
        (&["serve", &run, "--port", "0"][..], "Ctrl-C ends the server"),
        (&["watch", &run, "--port", "0"], "Ctrl-C ends"),
    ] {
        let mut server = Terminal::start(args);
        server.shows(ready);
        assert!(server.screen.text().starts_with("http://127.0.0.1:"), "{}", server.screen.text());
        server.types("\x03");
        let (code, text) = server.end();
        assert!(code == 0, "{text}");
    }
}
