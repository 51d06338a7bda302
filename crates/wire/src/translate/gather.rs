//! A chat answer put together from its stream, for whoever wants it both piece by piece and
//! whole.

use seawall_model::{Code, Fault, Finish, Usage};

use super::chat_stream::Hear;
use super::talk::{Answer, Delta, Part};
use super::{Context, chat_answer};
use crate::fault::engine_message;
use crate::json::{self, Object};
use crate::sse::{Event, Events};
use crate::usage;

/// The stream so far.
#[derive(Debug)]
pub struct Gathering {
    events: Events,
    heard: Heard,
}

#[derive(Debug)]
struct Heard {
    context: Context,
    hear: Hear,
    bytes_max: usize,
    bytes: usize,
    text: String,
    thinking: String,
    refusal: String,
    calls: Vec<Part>,
    usage: Option<Usage>,
    finish: Option<(Finish, Option<String>)>,
    done: bool,
    /// Steps of the event being read; kept for its allocation.
    steps: Vec<Delta>,
}

impl Gathering {
    /// Nothing yet. The answer is to have this id and model, and at most so many bytes of
    /// text, thought and arguments.
    #[must_use]
    pub fn new(id: &str, model: &str, bytes_max: usize) -> Self {
        let context = Context { id: id.to_owned(), model: model.to_owned(), ..Context::default() };
        let heard = Heard {
            hear: Hear::new(context.id.clone()),
            context,
            bytes_max,
            bytes: 0,
            text: String::new(),
            thinking: String::new(),
            refusal: String::new(),
            calls: Vec::new(),
            usage: None,
            finish: None,
            done: false,
            steps: Vec::new(),
        };
        Self { events: Events::new(), heard }
    }

    /// Takes in what has arrived; `said` is given each piece of the text.
    ///
    /// # Errors
    /// What an error event says, `engine_garbled` for events that are not understood,
    /// `answer_too_large`.
    pub fn feed(&mut self, chunk: &[u8], mut said: impl FnMut(&str)) -> Result<(), Fault> {
        let Self { events, heard } = self;
        events.feed(chunk, |event| heard.event(event, &mut said))
    }

    /// The stream has ended: the answer as if it had come whole, and why it ended.
    ///
    /// # Errors
    /// `engine_cut` where it ended before the answer did; else as [`Gathering::feed`].
    pub fn end(mut self, mut said: impl FnMut(&str)) -> Result<(Vec<u8>, Finish), Fault> {
        let Self { events, heard } = &mut self;
        events.end(|event| heard.event(event, &mut said))?;
        self.heard.whole()
    }
}

impl Heard {
    fn event(&mut self, event: Event<'_>, said: &mut impl FnMut(&str)) -> Result<(), Fault> {
        if self.done {
            return Ok(());
        }
        let heard = self.hear.event(event, &mut self.steps).map_err(|fault| own_fault(event.data, fault));
        let mut steps = std::mem::take(&mut self.steps);
        let taken = steps.drain(..).try_for_each(|delta| self.take(delta, said));
        self.steps = steps;
        heard.and(taken)
    }

    fn take(&mut self, delta: Delta, said: &mut impl FnMut(&str)) -> Result<(), Fault> {
        match delta {
            Delta::Text(text) => {
                self.counts(&text)?;
                said(&text);
                self.text.push_str(&text);
            }
            Delta::Refusal(text) => {
                self.counts(&text)?;
                self.refusal.push_str(&text);
            }
            Delta::Thinking(text) => {
                self.counts(&text)?;
                self.thinking.push_str(&text);
            }
            Delta::Call { id, name, .. } => {
                self.counts(&name)?;
                self.calls.push(Part::Call { id, name, arguments: String::new() });
            }
            Delta::Arguments { at, text } => {
                self.counts(&text)?;
                if let Some(Part::Call { arguments, .. }) = self.calls.get_mut(at) {
                    arguments.push_str(&text);
                }
            }
            Delta::Usage(more) => self.usage = Some(usage::join(self.usage, more)),
            Delta::Finish { finish, stopped_by } => self.finish = Some((finish, stopped_by)),
            Delta::Done => self.done = true,
            Delta::Start | Delta::Seal(_) | Delta::Redacted(_) | Delta::Break | Delta::Ping => {}
        }
        Ok(())
    }

    fn counts(&mut self, text: &str) -> Result<(), Fault> {
        self.bytes += text.len();
        if self.bytes > self.bytes_max { Err(Fault::plain(Code::AnswerTooLarge)) } else { Ok(()) }
    }

    fn whole(mut self) -> Result<(Vec<u8>, Finish), Fault> {
        let Some((finish, stopped_by)) = self.finish else {
            return Err(Fault::plain(Code::EngineCut));
        };
        let mut parts = Vec::with_capacity(self.calls.len() + 3);
        if !self.thinking.is_empty() {
            parts.push(Part::Thinking { text: self.thinking, seal: None });
        }
        if !self.text.is_empty() {
            parts.push(Part::Text(self.text));
        }
        if !self.refusal.is_empty() {
            parts.push(Part::Refusal(self.refusal));
        }
        parts.append(&mut self.calls);
        let answer = Answer { parts, finish, stopped_by, usage: self.usage }.settled();
        Ok((chat_answer::write_answer(&answer, &self.context), answer.finish))
    }
}

/// The fault that an error event of our own tells of by its code; else the one found.
fn own_fault(event: &[u8], found: Fault) -> Fault {
    let error = Object::parse(event).and_then(|whole| json::object(whole.find("error")?).ok());
    let code = error.and_then(|error| error.hint("code")).and_then(|code| Code::from_name(&code));
    match code {
        Some(code) => Fault::new(code, engine_message(event).unwrap_or_else(|| code.row().says.to_owned())),
        None => found,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::talk;

    fn gathered(stream: &str, bytes_max: usize) -> (String, Result<(Vec<u8>, Finish), Fault>) {
        let mut gathering = Gathering::new("x", "m", bytes_max);
        let mut said = String::new();
        for piece in stream.as_bytes().chunks(7) {
            if let Err(fault) = gathering.feed(piece, |text| said.push_str(text)) {
                return (said, Err(fault));
            }
        }
        let whole = gathering.end(|text| said.push_str(text));
        (said, whole)
    }

    #[test]
    fn a_stream_makes_the_answer_that_would_have_come_whole() {
        let stream = concat!(
            "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"Let me \"}}]}\n\n",
            ": ping\n\n",
            "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"look.\"}}]}\n\n",
            "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"c1\",\"function\":{\"name\":\"f\",\"arguments\":\"\"}}]}}]}\n\n",
            "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"{\\\"a\\\":\"}}]}}]}\n\n",
            "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"1}\"}}]}}]}\n\n",
            "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"tool_calls\"}]}\n\n",
            "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":4}}\n\ndata: [DONE]\n\n",
        );
        let (said, whole) = gathered(stream, 1_000);
        let (body, finish) = whole.expect("whole");
        assert_eq!((said.as_str(), finish), ("Let me look.", Finish::Tools));
        let answer = talk::Answer::read(&body).expect("an answer");
        assert_eq!(answer.message.text, "Let me look.");
        assert_eq!(answer.message.calls[0].arguments, "{\"a\":1}");
        assert_eq!(answer.usage.map(|used| (used.input.0, used.output.0)), Some((9, 4)));
    }

    #[test]
    fn a_stream_that_ends_badly_is_no_answer() {
        let text = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"half\"}}]}\n\n";
        let code =
            |stream: &str, max| gathered(stream, max).1.map_err(|fault| fault.code).expect_err("no answer");
        assert_eq!(code(text, 100), Code::EngineCut);
        assert_eq!(code(text, 3), Code::AnswerTooLarge);
        let fault =
            crate::fault::fault_event(seawall_model::Protocol::Chat, &Fault::plain(Code::RunStopped), "t");
        let told = format!("{text}{}", String::from_utf8(fault).expect("text"));
        assert_eq!(code(&told, 100), Code::RunStopped, "our own codes survive");
        assert_eq!(code("data: {\"error\":{\"message\":\"out of memory\"}}\n\n", 100), Code::EngineFailed);
    }
}
