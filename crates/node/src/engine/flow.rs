//! How an answer leaves: when its tokens exist, and the bodies that carry them. Bodies
//! are pulled, one token to a frame: what the reader does not take is not made.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use seawall_model::{At, Finish, Tokens, Usage};
use tokio::time::Sleep;

use super::speech::Speech;
use super::world::{Progress, Ticket};
use super::{chat, completions, messages, responses};
use crate::clock;

/// When tokens exist.
#[derive(Debug)]
pub(super) enum Source {
    /// When the batching model says so.
    Model(Arc<Progress>),
    /// By a timer.
    Timed(Timed),
}

/// A fixed schedule.
#[derive(Debug)]
pub(super) struct Timed {
    pub(super) start: At,
    pub(super) first_ms: u64,
    pub(super) token_ms: u64,
    pub(super) unary_ms: Option<u64>,
    timer: Option<(u64, Pin<Box<Sleep>>)>,
}

impl Timed {
    pub(super) const fn new(start: At, first_ms: u64, token_ms: u64, unary_ms: Option<u64>) -> Self {
        Self { start, first_ms, token_ms, unary_ms, timer: None }
    }

    /// Ready `ms` after the start.
    fn poll(&mut self, cx: &mut Context<'_>, ms: u64) -> Poll<()> {
        if ms == 0 {
            return Poll::Ready(());
        }
        let due = self.start.0.saturating_add(ms.saturating_mul(1_000));
        let (armed, timer) = self
            .timer
            .get_or_insert_with(|| (due, Box::pin(tokio::time::sleep_until(clock::instant(At(due))))));
        if *armed != due {
            *armed = due;
            timer.as_mut().reset(clock::instant(At(due)));
        }
        timer.as_mut().poll(cx)
    }
}

impl Source {
    /// Ready when token `index` of every one of `choices` exists.
    fn poll_token(&mut self, cx: &mut Context<'_>, index: u32, choices: u32) -> Poll<()> {
        match self {
            Self::Model(progress) => progress.poll_token(cx, index),
            Self::Timed(timed) => {
                let step = u64::from(index / choices);
                timed.poll(cx, timed.first_ms.saturating_add(timed.token_ms.saturating_mul(step)))
            }
        }
    }

    /// Ready when all is said; `tokens` to a choice.
    fn poll_whole(&mut self, cx: &mut Context<'_>, tokens: u32) -> Poll<()> {
        match self {
            Self::Model(progress) => progress.poll_done(cx),
            Self::Timed(timed) => {
                let steps = u64::from(tokens.saturating_sub(1));
                let sum = timed.first_ms.saturating_add(timed.token_ms.saturating_mul(steps));
                timed.poll(cx, timed.unary_ms.unwrap_or(sum))
            }
        }
    }

    fn cached(&self) -> u64 {
        match self {
            Self::Model(progress) => progress.cached(),
            Self::Timed(_) => 0,
        }
    }
}

/// The protocol that an answer is spoken in.
#[derive(Debug)]
pub(super) enum Voice {
    Chat(chat::Voice),
    Completions(completions::Voice),
    Messages(messages::Voice),
    Responses(responses::Voice),
}

/// One token of a speech and when it left.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token<'a> {
    pub(super) speech: &'a Speech,
    pub(super) choice: u32,
    pub(super) index: u32,
    pub(super) usage: Usage,
    pub(super) at: At,
}

impl Voice {
    fn token(&mut self, out: &mut Vec<u8>, token: &Token<'_>) {
        match self {
            Self::Chat(voice) => voice.token(out, token),
            Self::Completions(voice) => voice.token(out, token),
            Self::Messages(voice) => voice.token(out, token),
            Self::Responses(voice) => voice.token(out, token),
        }
    }

    fn close(&mut self, out: &mut Vec<u8>, speech: &Speech, usage: Usage) {
        match self {
            Self::Chat(voice) => voice.close(out, speech, usage),
            Self::Completions(voice) => voice.close(out, speech, usage),
            Self::Messages(voice) => voice.close(out, speech, usage),
            Self::Responses(voice) => voice.close(out, speech, usage),
        }
    }

    fn whole(&self, speech: &Speech, usage: Usage) -> Vec<u8> {
        match self {
            Self::Chat(voice) => voice.whole(speech, usage),
            Self::Completions(voice) => voice.whole(speech, usage),
            Self::Messages(voice) => voice.whole(speech, usage),
            Self::Responses(voice) => voice.whole(speech, usage),
        }
    }
}

/// One answer on its way out.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) ticket: Ticket,
    pub(super) voice: Voice,
    pub(super) speech: Speech,
    pub(super) source: Source,
    /// A first token that comes late.
    pub(super) hold: Option<Pin<Box<Sleep>>>,
    /// Tokens after which the connection breaks.
    pub(super) cut: Option<u32>,
    pub(super) choices: u32,
    pub(super) prompt: u64,
    next: u32,
    total: u32,
    over: bool,
    /// The cut is under way.
    cutting: bool,
    /// The size of the last frame: what the next will need.
    room: usize,
    last: At,
}

impl Flow {
    pub(super) fn new(
        ticket: Ticket,
        voice: Voice,
        speech: Speech,
        source: Source,
        choices: u32,
        prompt: u64,
    ) -> Self {
        let total = speech.len().saturating_mul(choices);
        let last = ticket.started;
        Self {
            ticket,
            voice,
            speech,
            source,
            hold: None,
            cut: None,
            choices,
            prompt,
            next: 0,
            total,
            over: false,
            cutting: false,
            room: 512,
            last,
        }
    }

    /// Makes the first token late.
    pub(super) fn hold(&mut self, wait: Duration) {
        self.hold = Some(Box::pin(tokio::time::sleep(wait)));
    }

    fn usage(&self) -> Usage {
        let output = u64::from(self.speech.tokens()) * u64::from(self.choices);
        Usage {
            input: Tokens(self.prompt),
            cached: Tokens(self.source.cached()),
            cache_written: Tokens::ZERO,
            output: Tokens(output),
            reasoning: Tokens(u64::from(self.speech.reasoning) * u64::from(self.choices)),
        }
    }

    fn poll_hold(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(hold) = &mut self.hold {
            ready!(hold.as_mut().poll(cx));
            self.hold = None;
        }
        Poll::Ready(())
    }

    /// Settles the counts of an answer that is complete.
    fn finish(&mut self) {
        self.over = true;
        let (ledger, usage) = (&self.ticket.world.ledger, self.usage());
        ledger.prompt_tokens.fetch_add(usage.input.0, Relaxed);
        ledger.cached_tokens.fetch_add(usage.cached.0, Relaxed);
        ledger.generated_tokens.fetch_add(usage.output.0, Relaxed);
        let ends = if self.speech.finish == Finish::Length { &ledger.cut_short } else { &ledger.stopped };
        ends.fetch_add(1, Relaxed);
        self.ticket.finish();
    }

    /// Waits for all of it and gives it in one piece.
    pub(super) async fn whole(&mut self) -> Bytes {
        std::future::poll_fn(|cx| {
            ready!(self.poll_hold(cx));
            self.source.poll_whole(cx, self.speech.tokens())
        })
        .await;
        let body = self.voice.whole(&self.speech, self.usage());
        self.ticket.sent = self.total;
        self.ticket.world.ledger.first_token.add(clock::now().micros_since(self.ticket.started));
        self.ticket.world.ledger.bytes.fetch_add(body.len() as u64, Relaxed);
        self.finish();
        body.into()
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if self.over {
            return Poll::Ready(None);
        }
        ready!(self.poll_hold(cx));
        if self.cut == Some(self.next) && !self.cutting {
            // What was sent so far shall arrive: a failing body takes hyper's buffer with it.
            self.cutting = true;
            self.hold(CUT_DELAY);
            ready!(self.poll_hold(cx));
        }
        if self.cutting {
            self.ticket.abandon();
            self.over = true;
            return Poll::Ready(Some(Err(cut())));
        }
        let hidden = self.speech.reasoning.saturating_mul(self.choices);
        ready!(self.source.poll_token(cx, hidden.saturating_add(self.next), self.choices));
        let now = clock::now();
        let delays = &self.ticket.world.ledger;
        let delays = if self.next == 0 { &delays.first_token } else { &delays.token };
        delays.add(now.micros_since(self.last));
        self.last = now;
        let mut out = Vec::with_capacity(self.room + 16);
        if self.next < self.total {
            let (choice, index) = (self.next % self.choices, self.next / self.choices);
            let token = Token { speech: &self.speech, choice, index, usage: self.usage(), at: now };
            self.voice.token(&mut out, &token);
            self.next += 1;
            self.ticket.sent = self.next;
            self.room = out.len();
        }
        if self.next == self.total && self.cut != Some(self.next) {
            let usage = self.usage();
            self.voice.close(&mut out, &self.speech, usage);
            self.finish();
        }
        self.ticket.world.ledger.bytes.fetch_add(out.len() as u64, Relaxed);
        Poll::Ready(Some(Ok(out.into())))
    }
}

/// Between the last byte and the break of the connection.
const CUT_DELAY: Duration = Duration::from_millis(5);

/// The error that breaks a connection on purpose.
fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "cut by a fault")
}

/// The body of an answer.
#[derive(Debug)]
pub(super) enum Body {
    /// All of it.
    Full(Bytes),
    /// Token by token.
    Stream(Box<Flow>),
    /// These bytes, then the connection breaks.
    Cut(Bytes, Pin<Box<Sleep>>),
    /// Nothing, for ever; ends only when the client leaves.
    Silent(#[expect(dead_code, reason = "held for its drop, which records the cancel")] Ticket),
}

impl Body {
    /// These bytes, then a broken connection.
    pub(super) fn cut(part: Bytes) -> Self {
        Self::Cut(part, Box::pin(tokio::time::sleep(CUT_DELAY)))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Stream(flow) => flow.poll_frame(cx).map(|next| next.map(|frame| frame.map(Frame::data))),
            Self::Cut(bytes, delay) if bytes.is_empty() => delay.as_mut().poll(cx).map(|()| Some(Err(cut()))),
            Self::Cut(bytes, _) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Silent(_) => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.is_empty(),
            Self::Stream(flow) => flow.over,
            Self::Cut(..) | Self::Silent(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            _ => SizeHint::default(),
        }
    }
}
