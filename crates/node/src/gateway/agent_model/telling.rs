//! What a client is told of a run while it works: the model's words as they come, comments
//! while tools work, and at the end whatever of the output it has not heard yet.

use std::sync::Arc;

use bytes::Bytes;
use seawall_model::{Fault, Finish, Protocol, Tokens};
use seawall_wire::fault::fault_event;
use seawall_wire::tokens::estimate_answer;
use seawall_wire::translate::{Context, Stream};
use serde_json::{Value, json};

use crate::agents::stream::Talk;
use crate::memory::Hold;

use super::attend::Outcome;

/// Between two answers of one run.
const APART: &str = "\n\n";
/// Longest comment: a tool's name and what is said of it.
const NOTE_CHARS_MAX: usize = 200;

/// One client's answer in the making.
#[derive(Debug)]
pub(super) struct Telling {
    protocol: Protocol,
    context: Context,
    trace: Arc<str>,
    stream: Stream,
    said: Said,
    hold: Option<Hold>,
    aloud: bool,
}

impl Telling {
    /// Nothing was said yet. What was said is kept in `hold` until the end; with `aloud` off
    /// only the output is told.
    pub(super) fn new(
        protocol: Protocol,
        context: Context,
        trace: Arc<str>,
        hold: Option<Hold>,
        aloud: bool,
    ) -> Self {
        let stream = Stream::new(Protocol::Chat, protocol, context.clone());
        Self { protocol, context, trace, stream, said: Said::new(), hold, aloud }
    }

    /// The answer begins, under the run's name.
    ///
    /// # Errors
    /// The protocol cannot say it.
    pub(super) fn begin(&mut self, id: String) -> Result<Bytes, Fault> {
        self.context.id = id;
        self.stream = Stream::new(Protocol::Chat, self.protocol, self.context.clone());
        self.feed(&json!({"choices": []}))
    }

    /// What the client hears of this.
    ///
    /// # Errors
    /// The answer is too long for the protocol.
    pub(super) fn talk(&mut self, talk: &Talk) -> Result<Option<Bytes>, Fault> {
        if let Talk::Tool(tool) = talk {
            return Ok(Some(note(&format!("tool {tool}"))));
        }
        if let Talk::Text(text) = talk {
            // Kept here, and once more where the protocol repeats it at its end.
            let room = self.hold.as_mut().is_some_and(|hold| hold.grow(2 * text.len() as u64));
            if !room {
                self.said.hear(&Talk::Missed);
            }
        }
        match self.said.hear(talk).filter(|_| self.aloud) {
            Some(text) => self.text(&text).map(Some),
            None => Ok(None),
        }
    }

    /// The end: what is left of the output, or why there is none.
    pub(super) fn end(&mut self, outcome: &Outcome) -> Bytes {
        match &outcome.output {
            Ok(output) => self.done(output, outcome.used).unwrap_or_else(|fault| self.fault(&fault)),
            Err(fault) => self.fault(fault),
        }
    }

    fn done(&mut self, output: &str, used: Tokens) -> Result<Bytes, Fault> {
        let rest = if self.aloud { self.said.rest(output) } else { output.to_owned() };
        let mut told = if rest.is_empty() { Vec::new() } else { self.text(&rest)?.to_vec() };
        let last = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": usage(output, used)});
        told.extend_from_slice(&self.feed(&last)?);
        self.stream.feed(b"data: [DONE]\n\n", &mut told)?;
        Ok(told.into())
    }

    /// The answer ends with this fault.
    pub(super) fn fault(&self, fault: &Fault) -> Bytes {
        fault_event(self.protocol, fault, &self.trace).into()
    }

    fn text(&mut self, text: &str) -> Result<Bytes, Fault> {
        self.feed(&json!({"choices": [{"index": 0, "delta": {"content": text}}]}))
    }

    fn feed(&mut self, chunk: &Value) -> Result<Bytes, Fault> {
        let mut out = Vec::new();
        self.stream.feed(format!("data: {chunk}\n\n").as_bytes(), &mut out)?;
        Ok(out.into())
    }
}

/// A comment, which clients skip: it only says that the run is at work.
pub(super) fn note(text: &str) -> Bytes {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let line: String = text.chars().take(NOTE_CHARS_MAX).map(plain).collect();
    format!(": {line}\n\n").into()
}

/// A run's output as a chat answer.
pub(super) fn chat_answer(output: &str, used: Tokens) -> Vec<u8> {
    let message = json!({"role": "assistant", "content": output});
    let choice = json!({"index": 0, "message": message, "finish_reason": "stop"});
    json!({"choices": [choice], "usage": usage(output, used)}).to_string().into_bytes()
}

/// What the run and all below it used. Its own output is the part that is the answer, by
/// estimate; everything else, whatever it was for, went into it.
fn usage(output: &str, used: Tokens) -> Value {
    let answer = json!({"choices": [{"message": {"content": output}}]}).to_string();
    let answered = estimate_answer(Protocol::Chat, answer.as_bytes()).min(used);
    let total = used.0;
    json!({"prompt_tokens": total - answered.0, "completion_tokens": answered.0, "total_tokens": total})
}

/// What was said so far, as far as the output may begin with it.
#[derive(Debug)]
struct Said {
    /// The answer in the making, with the pieces that it goes on from.
    current: String,
    /// Was anything said at all?
    any: bool,
    /// Is the next piece the first of an answer?
    fresh: bool,
    /// The next answer goes on where the last was cut.
    goes_on: bool,
    /// Pieces are missing until the next answer begins.
    missed: bool,
}

impl Said {
    fn new() -> Self {
        // Whoever comes in the middle of an answer has missed its beginning.
        Self { current: String::new(), any: false, fresh: true, goes_on: false, missed: true }
    }

    /// Takes in what the run says; what of it the client is told.
    fn hear(&mut self, talk: &Talk) -> Option<String> {
        match talk {
            Talk::Begun => {
                if !std::mem::take(&mut self.goes_on) {
                    self.current.clear();
                    (self.fresh, self.missed) = (true, false);
                }
            }
            Talk::Ended(finish) => self.goes_on = *finish == Finish::Length,
            Talk::Broke => self.goes_on = false,
            Talk::Missed => self.missed = true,
            Talk::Tool(_) => {}
            Talk::Text(_) if self.missed => {}
            Talk::Text(text) => {
                let between = if std::mem::take(&mut self.fresh) && self.any { APART } else { "" };
                self.any = true;
                self.current.push_str(text);
                return Some(format!("{between}{text}"));
            }
        }
        None
    }

    /// What of the output was not said yet; all of it, where what was said last is not how it
    /// begins.
    fn rest(&self, output: &str) -> String {
        match output.strip_prefix(self.current.as_str()) {
            Some(rest) if !self.current.is_empty() => rest.to_owned(),
            _ if self.any => format!("{APART}{output}"),
            _ => output.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Talk {
        Talk::Text(text.into())
    }

    /// What a client has heard at the end.
    fn heard(talks: &[Talk], output: &str) -> String {
        let mut said = Said::new();
        let mut all: String = talks.iter().filter_map(|talk| said.hear(talk)).collect();
        all.push_str(&said.rest(output));
        all
    }

    #[test]
    fn the_output_is_heard_whole_whatever_was_missed() {
        let (begun, ended) = (Talk::Begun, Talk::Ended(Finish::Stop));
        let whole = [begun.clone(), text("ab"), text("cd"), ended.clone()];
        assert_eq!(heard(&whole, "abcd"), "abcd");
        assert_eq!(heard(&[], "abcd"), "abcd");
        assert_eq!(heard(&[text("cd"), ended.clone()], "abcd"), "abcd", "it came too late");
        assert_eq!(heard(&[begun.clone(), text("ab"), Talk::Missed, text("d")], "abcd"), "abcd");
        assert_eq!(heard(&[begun.clone(), text("x"), ended.clone()], "abcd"), "x\n\nabcd", "another answer");
        assert_eq!(
            heard(&[begun.clone(), text("ab"), Talk::Broke, begun, text("abcd"), ended], "abcd"),
            "ab\n\nabcd"
        );
    }

    #[test]
    fn talk_before_tools_stands_apart_and_pieces_of_a_cut_answer_together() {
        let tools =
            [Talk::Begun, text("Let me look."), Talk::Ended(Finish::Tools), Talk::Tool("lookup".into())];
        let answer = [Talk::Begun, text("It is "), Talk::Ended(Finish::Length), Talk::Begun, text("blue.")];
        let talks: Vec<Talk> = tools.into_iter().chain(answer).collect();
        assert_eq!(heard(&talks, "It is blue."), "Let me look.\n\nIt is blue.");
    }

    #[test]
    fn a_note_is_one_comment_whatever_a_tool_is_called() {
        assert_eq!(note("tool a\n\ndata: x"), ": tool a  data: x\n\n".as_bytes());
    }

    #[test]
    fn every_protocol_tells_a_run_to_its_end() {
        for (protocol, last) in [
            (Protocol::Chat, "data: [DONE]\n\n"),
            (Protocol::Messages, "message_stop"),
            (Protocol::Responses, "response.completed"),
        ] {
            let mut context = Context::default();
            context.model = "agent/a".to_owned();
            context.include_usage = true;
            let hold = crate::memory::Memory::new(seawall_model::Bytes(1_000)).hold(0);
            let mut telling = Telling::new(protocol, context, "t".into(), hold, true);
            let mut all = telling.begin("run-1f03".into()).expect("begins").to_vec();
            for talk in [Talk::Begun, text("It is"), Talk::Ended(Finish::Stop)] {
                all.extend(telling.talk(&talk).expect("fits").unwrap_or_default());
            }
            all.extend(telling.end(&Outcome { output: Ok("It is blue.".into()), used: Tokens(30) }));
            let all = String::from_utf8(all).expect("text");
            assert!(all.contains("run-1f03") && all.contains("It is") && all.contains(" blue."), "{all}");
            assert!(
                all.contains(last) && (protocol != Protocol::Chat || all.contains("\"total_tokens\":30")),
                "{all}"
            );
        }
    }
}
