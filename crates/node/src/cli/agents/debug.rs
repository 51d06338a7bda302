//! `seawall debug`: steps through a run's turns, back and forth, from commands typed line by
//! line or piped in; shows what the run knew after each, and forks it there.

use std::io::{BufRead as _, IsTerminal as _, Read as _};

use serde_json::{Value, json};

use crate::cli::code;
use crate::cli::print::{self, BOLD, DIM};
use crate::cli::server::{Failed, Server, failed};

use super::args::DebugArgs;
use super::{attempt, orders, run_named, show, step};

/// Longest line of a command: one with a tool's result in it.
const LINE_BYTES_MAX: u64 = 4 << 20;

pub(super) fn run(args: &DebugArgs) -> i32 {
    attempt(args.ask.json, || {
        let run = run_named(&args.run)?.to_string();
        let server = Server::at(&args.ask.server)?;
        if let Some(turn) = args.fork {
            let body = orders::forking(turn, args.task.as_deref(), &args.set, args.definition.as_deref())?;
            let begun = server.post(&format!("/seawall/runs/{run}/fork"), &body)?;
            if args.ask.json.json {
                print::json(&begun);
            } else {
                print::text(&orders::started(&begun));
            }
            return Ok(code::OK);
        }
        let mut session = Session::open(&server, run)?;
        match args.turn {
            Some(turn) => {
                let shown = session.turn(u64::from(turn))?;
                if args.ask.json.json {
                    print::json(&shown);
                } else {
                    print::text(&step::head(&shown, session.last()));
                    print::text(&step::state(&shown, None));
                }
            }
            None if args.ask.json.json => print::json(&json!({ "run": session.run, "turns": session.turns })),
            None => session.talk()?,
        }
        Ok(code::OK)
    })
}

/// What a line asks for.
#[derive(Debug, PartialEq, Eq)]
enum Command<'a> {
    Next,
    Previous,
    Go(u64),
    List,
    State(Option<&'a str>),
    Mailbox,
    Effects,
    Conversation,
    Fork(&'a str),
    Reload,
    Help,
    Quit,
    Nothing,
    Unknown,
}

const HELP: &str = "\
n            next turn             p            previous turn
g N          go to turn N          l            list turns
s [KEY]      state, or one value   c            conversation
m            what the turn saw     e            effects it asked for
r            read the run anew     q            quit
f [task=TASK] [definition=VERSION] [KEY=VALUE ...]
             fork after this turn: begin a new run from its state, with what is another.
             A value with spaces stands in double quotes, or is JSON without spaces.
";

impl<'a> Command<'a> {
    fn read(line: &'a str) -> Self {
        let line = line.trim();
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        match (word, rest) {
            ("", _) => Self::Nothing,
            ("n" | "next", "") => Self::Next,
            ("p" | "prev" | "previous", "") => Self::Previous,
            ("g" | "go", number) => number.parse().map_or(Self::Unknown, Self::Go),
            ("l" | "list", "") => Self::List,
            ("s" | "state", "") => Self::State(None),
            ("s" | "state", key) => Self::State(Some(key)),
            ("m" | "mailbox", "") => Self::Mailbox,
            ("e" | "effects", "") => Self::Effects,
            ("c" | "conversation", "") => Self::Conversation,
            ("f" | "fork", what) => Self::Fork(what),
            ("r" | "reload", "") => Self::Reload,
            ("h" | "help" | "?", _) => Self::Help,
            ("q" | "quit" | "exit", _) => Self::Quit,
            _ => Self::Unknown,
        }
    }
}

/// One run being looked at.
struct Session<'a> {
    server: &'a Server,
    run: String,
    /// All turns, without their states.
    turns: Vec<Value>,
    /// The turn looked at; 0 is before the first.
    at: u64,
    /// That turn whole, once it was needed.
    whole: Option<Value>,
}

impl<'a> Session<'a> {
    fn open(server: &'a Server, run: String) -> Result<Self, Failed> {
        let mut session = Self { server, run, turns: Vec::new(), at: 0, whole: None };
        session.reload()?;
        Ok(session)
    }

    fn reload(&mut self) -> Result<(), Failed> {
        let answer = self.server.get(&format!("/seawall/runs/{}/turns", self.run))?;
        let turns = if answer.is_array() { &answer } else { &answer["turns"] };
        self.turns = show::list(turns).to_vec();
        self.whole = None;
        self.at = self.at.min(self.last());
        Ok(())
    }

    /// The number of the last turn.
    fn last(&self) -> u64 {
        self.turns.last().and_then(|turn| turn["turn"].as_u64()).unwrap_or(0)
    }

    /// A turn whole.
    fn turn(&self, number: u64) -> Result<Value, Failed> {
        if number > self.last() {
            let what = format!("{} has no turn {number}: its last is {}", self.run, self.last());
            return Err(failed(
                code::NOT_WELL,
                what,
                format!("`seawall debug {}` lists them: `l`", self.run),
            ));
        }
        self.server.get(&format!("/seawall/runs/{}/turns/{number}", self.run))
    }

    /// The turn looked at, whole.
    fn here(&mut self) -> Result<&Value, Failed> {
        if self.whole.is_none() {
            self.whole = Some(self.turn(self.at)?);
        }
        Ok(self.whole.as_ref().expect("it was just read"))
    }

    /// The turn looked at as the list has it: without its state.
    fn head(&self) -> String {
        let before = json!({ "turn": 0 });
        let turn = self.turns.iter().find(|turn| turn["turn"].as_u64() == Some(self.at)).unwrap_or(&before);
        step::head(turn, self.last())
    }

    /// Takes commands until there are no more.
    fn talk(&mut self) -> Result<(), Failed> {
        let mut input = std::io::stdin().lock();
        let asked = input.is_terminal();
        print::text(&format!("{BOLD}{}{BOLD:#}: {} turns. `h` helps.\n", self.run, self.last()));
        self.at = self.last();
        print::text(&self.head());
        loop {
            if asked {
                print::prompt(&format!("{DIM}{}:{}>{DIM:#} ", self.run, self.at));
            }
            let mut line = String::new();
            let read = input.by_ref().take(LINE_BYTES_MAX).read_line(&mut line);
            let read = read.map_err(|error| failed(code::IO, format!("standard input: {error}"), ""))?;
            if read == 0 {
                return Ok(());
            }
            match self.obey(&Command::read(&line)) {
                Ok(Some(text)) => print::text(&text),
                Ok(None) => return Ok(()),
                // A person tries again; a script must not go on as if nothing had been.
                Err(failed) if asked => print::failure(&failed.what, &failed.hint),
                Err(failed) => return Err(failed),
            }
        }
    }

    /// Does what a line says; `None` ends the session.
    fn obey(&mut self, command: &Command<'_>) -> Result<Option<String>, Failed> {
        let text = match command {
            Command::Quit => return Ok(None),
            Command::Nothing => String::new(),
            Command::Help => HELP.to_owned(),
            Command::Unknown => {
                return Err(failed(code::USAGE, "there is no such command", "`h` lists them"));
            }
            Command::Next => self.go(self.at + 1)?,
            Command::Previous => {
                let before = self.at.checked_sub(1);
                self.go(before.ok_or_else(|| failed(code::USAGE, "this is where the run began", ""))?)?
            }
            Command::Go(number) => self.go(*number)?,
            Command::List => step::index(&self.turns, self.at),
            Command::State(key) => step::state(self.here()?, *key),
            Command::Mailbox => step::mailbox(self.here()?),
            Command::Effects => step::effects(self.here()?),
            Command::Conversation => step::conversation(self.here()?),
            Command::Fork(what) => self.fork(what)?,
            Command::Reload => {
                self.reload()?;
                self.head()
            }
        };
        Ok(Some(text))
    }

    fn go(&mut self, number: u64) -> Result<String, Failed> {
        if number > self.last() {
            let what = format!("the last turn is {}", self.last());
            return Err(failed(code::NOT_WELL, what, "`r` reads the run anew"));
        }
        self.at = number;
        self.whole = None;
        Ok(self.head())
    }

    fn fork(&self, what: &str) -> Result<String, Failed> {
        let turn = u32::try_from(self.at).expect("turns are counted in 32 bits");
        let (mut task, mut definition, mut set) = (None, None, Vec::new());
        for word in words(what)? {
            match word.split_once('=') {
                Some(("task", text)) => task = Some(text.to_owned()),
                Some(("definition", version)) => definition = Some(version.to_owned()),
                _ => set.push(word),
            }
        }
        let body = orders::forking(turn, task.as_deref(), &set, definition.as_deref())?;
        let begun = self.server.post(&format!("/seawall/runs/{}/fork", self.run), &body)?;
        Ok(orders::started(&begun))
    }
}

/// A line as words: spaces part them, but not between double quotes that begin a word or
/// stand right after its first `=`. Within those `\"` is a quote and `\\` a backslash.
fn words(line: &str) -> Result<Vec<String>, Failed> {
    let mut words = Vec::new();
    let mut chars = line.chars().peekable();
    loop {
        while chars.next_if(|char| char.is_whitespace()).is_some() {}
        if chars.peek().is_none() {
            return Ok(words);
        }
        let mut word = String::new();
        let mut may_quote = true;
        while let Some(char) = chars.next_if(|char| !char.is_whitespace()) {
            if char != '"' || !may_quote {
                may_quote = char == '=' && !word.contains('=');
                word.push(char);
                continue;
            }
            loop {
                match chars.next() {
                    None => return Err(failed(code::USAGE, "a double quote is not closed", "")),
                    Some('"') => break,
                    Some('\\') => word.extend(chars.next()),
                    Some(char) => word.push(char),
                }
            }
            may_quote = false;
        }
        words.push(word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_commands() {
        for (line, expected) in [
            ("n\n", Command::Next),
            (" previous ", Command::Previous),
            ("g 12", Command::Go(12)),
            ("g", Command::Unknown),
            ("s", Command::State(None)),
            ("s m/00000001", Command::State(Some("m/00000001"))),
            ("f task=\"a b\" x=1", Command::Fork("task=\"a b\" x=1")),
            ("f", Command::Fork("")),
            ("", Command::Nothing),
            ("n 3", Command::Unknown),
            ("frobnicate", Command::Unknown),
            ("q", Command::Quit),
        ] {
            assert_eq!(Command::read(line), expected, "{line}");
        }
    }

    #[test]
    fn words_may_be_quoted_and_json_stays_as_it_is() {
        let read = |line: &str| words(line).expect("words");
        assert_eq!(read(r#"task="two words" a=1"#), ["task=two words", "a=1"]);
        assert_eq!(read(r#"m/1={"role":"user"}"#), [r#"m/1={"role":"user"}"#]);
        assert_eq!(read(r#"m/1="{\"a b\":\"\\\"}""#), [r#"m/1={"a b":"\"}"#]);
        assert_eq!(read("  "), Vec::<String>::new());
        assert!(words(r#"a="b"#).is_err());
    }

    #[test]
    fn every_command_is_in_the_help() {
        for letter in ["n", "p", "g", "l", "s", "c", "m", "e", "r", "q", "f"] {
            assert!(HELP.split_whitespace().any(|word| word == letter), "{letter}");
            assert_ne!(Command::read(&format!("{letter} 1")), Command::Nothing);
        }
    }
}
