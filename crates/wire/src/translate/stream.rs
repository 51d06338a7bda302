//! A streamed answer, translated event by event as it arrives.

use seawall_model::{Code, Fault, Finish, Protocol, Usage};

use super::talk::Delta;
use super::{Context, chat_stream, messages_stream, no_way, responses_stream};
use crate::sse::{Event, Events};
use crate::usage;

/// The translator of one stream.
#[derive(Debug)]
pub struct Stream {
    events: Events,
    hear: Option<Hear>,
    speak: Speak,
    tally: Tally,
    /// Steps of the event being translated; kept for its allocation.
    steps: Vec<Delta>,
    /// Set when the two protocols cannot be joined at all.
    no_way: Option<Fault>,
}

/// Understands the engine.
#[derive(Debug)]
enum Hear {
    Chat(chat_stream::Hear),
    Messages(messages_stream::Hear),
    Responses(responses_stream::Hear),
}

/// Speaks to the client.
#[derive(Debug)]
enum Speak {
    Chat(chat_stream::Speak),
    Messages(messages_stream::Speak),
    Responses(Box<responses_stream::Speak>),
}

#[derive(Debug, Default)]
struct Tally {
    usage: Option<Usage>,
    /// Usage has come with or after the reason to end: it is the last.
    settled: bool,
    finish: Option<Finish>,
    tokens: u64,
    begun: bool,
    done: bool,
}

impl Stream {
    /// For an engine's stream in one protocol and a client's in another.
    #[must_use]
    pub fn new(engine: Protocol, client: Protocol, context: Context) -> Self {
        let mut refused = None;
        let hear = match engine {
            Protocol::Chat => Some(Hear::Chat(chat_stream::Hear::new(context.id.clone()))),
            Protocol::Messages => Some(Hear::Messages(messages_stream::Hear::default())),
            Protocol::Responses => Some(Hear::Responses(responses_stream::Hear::default())),
            _ => None,
        };
        let speak = match client {
            Protocol::Messages => Speak::Messages(messages_stream::Speak::new(context)),
            Protocol::Responses => Speak::Responses(Box::new(responses_stream::Speak::new(context))),
            Protocol::Chat => Speak::Chat(chat_stream::Speak::new(context, false)),
            Protocol::Completions => Speak::Chat(chat_stream::Speak::new(context, true)),
            Protocol::Embeddings | Protocol::CountTokens | Protocol::Other => {
                refused = Some(no_way(client, engine));
                Speak::Chat(chat_stream::Speak::new(context, false))
            }
        };
        if hear.is_none() {
            refused = Some(no_way(client, engine));
        }
        Self {
            events: Events::new(),
            hear,
            speak,
            tally: Tally::default(),
            steps: Vec::new(),
            no_way: refused,
        }
    }

    /// Translates what has arrived and appends it to `out`.
    ///
    /// # Errors
    /// `engine_garbled` for events that are not understood, `engine_failed` for an error
    /// event, `answer_too_large` where the client's protocol repeats the whole answer at
    /// its end and that has grown too large. The stream is over then; what was appended
    /// before stands.
    pub fn feed(&mut self, chunk: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
        if let Some(fault) = &self.no_way {
            return Err(fault.clone());
        }
        let Self { events, hear, speak, tally, steps, .. } = self;
        events.feed(chunk, |event| step(hear, speak, tally, steps, event, out))
    }

    /// The engine's stream has ended.
    ///
    /// # Errors
    /// `engine_cut` when it ended before its answer did; else as [`Stream::feed`].
    pub fn end(&mut self, out: &mut Vec<u8>) -> Result<(), Fault> {
        if let Some(fault) = &self.no_way {
            return Err(fault.clone());
        }
        let Self { events, hear, speak, tally, steps, .. } = self;
        events.end(|event| step(hear, speak, tally, steps, event, out))?;
        if tally.done {
            return Ok(());
        }
        if tally.finish.is_none() {
            return Err(Fault::plain(Code::EngineCut));
        }
        // The answer is whole; only the farewell is missing, as with some servers.
        tally.done = true;
        speak.put(&Delta::Done, out)
    }

    /// What the call used, as last reported; before the last report at least the tokens
    /// seen. None while nothing was reported.
    #[must_use]
    pub fn usage(&self) -> Option<Usage> {
        usage::so_far(self.tally.usage, self.tally.settled, self.tally.tokens)
    }

    /// Why generation ended, once it has.
    #[must_use]
    pub fn finish(&self) -> Option<Finish> {
        self.tally.finish
    }

    /// Events so far that carried output: an estimate of the tokens generated, to go by
    /// until usage arrives.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.tally.tokens
    }

    /// Bytes held: of an event that is not complete, and of the answer where the client's
    /// protocol repeats it at its end.
    #[must_use]
    pub fn held(&self) -> usize {
        let kept = match &self.speak {
            Speak::Responses(speak) => speak.kept(),
            Speak::Chat(_) | Speak::Messages(_) => 0,
        };
        self.events.held() + kept
    }

    /// Has the answer been translated to its end?
    #[must_use]
    pub fn complete(&self) -> bool {
        self.tally.done
    }
}

/// Translates one event.
fn step(
    hear: &mut Option<Hear>,
    speak: &mut Speak,
    tally: &mut Tally,
    steps: &mut Vec<Delta>,
    event: Event<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    if tally.done {
        return Ok(());
    }
    if !tally.begun {
        steps.push(Delta::Start);
        tally.begun = true;
    }
    let heard = match hear {
        Some(Hear::Chat(hear)) => hear.event(event, steps),
        Some(Hear::Messages(hear)) => hear.event(event, steps),
        Some(Hear::Responses(hear)) => hear.event(event, steps),
        None => Ok(()),
    };
    let mut output = false;
    let mut used = false;
    for delta in steps.drain(..) {
        used |= matches!(delta, Delta::Usage(_));
        if tally.note(&delta) && !std::mem::replace(&mut output, true) {
            tally.tokens += 1;
        }
        speak.put(&delta, out)?;
    }
    tally.settled |= used && tally.finish.is_some();
    heard
}

impl Tally {
    /// Counts a step; true if it carries output.
    fn note(&mut self, delta: &Delta) -> bool {
        match delta {
            Delta::Usage(more) => self.usage = Some(usage::join(self.usage, *more)),
            Delta::Finish { finish, .. } => self.finish = Some(*finish),
            Delta::Done => self.done = true,
            Delta::Text(_)
            | Delta::Refusal(_)
            | Delta::Thinking(_)
            | Delta::Call { .. }
            | Delta::Arguments { .. } => {
                return true;
            }
            Delta::Start | Delta::Seal(_) | Delta::Redacted(_) | Delta::Break | Delta::Ping => {}
        }
        false
    }
}

impl Speak {
    fn put(&mut self, delta: &Delta, out: &mut Vec<u8>) -> Result<(), Fault> {
        match self {
            Self::Chat(speak) => speak.put(delta, out),
            Self::Messages(speak) => speak.put(delta, out),
            Self::Responses(speak) => return speak.put(delta, out),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use seawall_model::Tokens;

    use super::*;

    #[test]
    fn a_stream_that_is_cut_is_never_billed_less_than_was_seen() {
        let start = "data: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":5,\"output_tokens\":1}}}\n\n\
            data: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n";
        let more = "data: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"x\"}}\n\n";
        let end = "data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":20}}\n\n";
        let mut stream = Stream::new(Protocol::Messages, Protocol::Chat, Context::default());
        let mut out = Vec::new();
        stream.feed(start.as_bytes(), &mut out).expect("understood");
        stream.feed(more.repeat(30).as_bytes(), &mut out).expect("understood");
        assert_eq!(stream.usage().map(|usage| (usage.input, usage.output)), Some((Tokens(5), Tokens(30))));
        stream.feed(end.as_bytes(), &mut out).expect("understood");
        assert_eq!(stream.usage().map(|usage| usage.output), Some(Tokens(20)));
    }
}
