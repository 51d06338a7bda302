//! Any served protocol over any engine protocol. A request, an answer or a stream is
//! read into the neutral words of [`talk`] and written from them; each protocol is one
//! spoke. What cannot be carried and would change the meaning is refused with the name
//! of its field; what only tunes or labels (seed, user, metadata, service tier, cache
//! marks) is mapped where there is a counterpart and dropped where there is none.

mod chat;
mod chat_answer;
mod chat_stream;
mod completions;
mod gather;
mod messages;
mod messages_stream;
mod responses;
mod responses_answer;
mod responses_stream;
mod stream;
mod talk;

use seawall_model::{Code, Fault, Protocol};

pub use gather::Gathering;
pub use stream::Stream;

use crate::fault::engine_message;
use crate::json::{self, Object};

/// In which of an engine's protocols a client's call is sent: the same if it has it,
/// else the nearest that can carry it. None where nothing can (embeddings, token
/// counts and passed-through paths are never translated).
#[must_use]
pub fn target(client: Protocol, native: &[Protocol]) -> Option<Protocol> {
    let order: &[Protocol] = match client {
        Protocol::Chat => &[Protocol::Chat, Protocol::Messages, Protocol::Responses],
        Protocol::Completions => {
            &[Protocol::Completions, Protocol::Chat, Protocol::Messages, Protocol::Responses]
        }
        Protocol::Responses => &[Protocol::Responses, Protocol::Chat, Protocol::Messages],
        Protocol::Messages => &[Protocol::Messages, Protocol::Chat, Protocol::Responses],
        Protocol::Embeddings => &[Protocol::Embeddings],
        Protocol::CountTokens => &[Protocol::CountTokens],
        Protocol::Other => &[Protocol::Other],
    };
    order.iter().copied().find(|protocol| native.contains(protocol))
}

/// What an answer must know of its request. [`request_to`] fills it; the shell then
/// sets `id` and `created`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// The model as the client named it.
    pub model: String,
    /// The answer's own id, without prefix: letters, digits and `_` only.
    pub id: String,
    /// When it was made, in Unix seconds.
    pub created: u64,
    /// Chat and Completions streams: did the client ask for a usage chunk?
    pub include_usage: bool,
    /// Is the answer streamed?
    pub stream: bool,
    /// Request fields that the client's protocol repeats in its answer, as JSON text.
    pub(crate) echo: Vec<(&'static str, String)>,
}

/// Rebuilds a request for an engine that speaks another protocol, under the name the
/// engine has for the model.
///
/// # Errors
/// `bad_json` and `bad_field` for a request that is wrong in its own protocol;
/// `not_translatable`, naming the field, for one that the engine's protocol cannot
/// carry.
pub fn request_to(
    client: Protocol,
    engine: Protocol,
    body: &[u8],
    model: &str,
) -> Result<(Vec<u8>, Context), Fault> {
    let body = json::body(body)?;
    let ask = match client {
        Protocol::Chat => chat::read(&body)?,
        Protocol::Completions => completions::read(&body)?,
        Protocol::Responses => responses::read(&body)?,
        Protocol::Messages => messages::read(&body)?,
        Protocol::Embeddings | Protocol::CountTokens | Protocol::Other => return Err(no_way(client, engine)),
    };
    let written = match engine {
        Protocol::Chat => chat::write(&ask, model)?,
        Protocol::Messages => messages::write(&ask, model)?,
        Protocol::Responses => responses::write(&ask, model)?,
        Protocol::Completions | Protocol::Embeddings | Protocol::CountTokens | Protocol::Other => {
            return Err(no_way(client, engine));
        }
    };
    let context = Context {
        model: ask.model,
        id: String::new(),
        created: 0,
        include_usage: ask.include_usage,
        stream: ask.stream,
        echo: ask.echo,
    };
    Ok((written, context))
}

/// Rebuilds a whole answer in the client's protocol.
///
/// # Errors
/// `engine_garbled` for one that is not understood, `engine_failed` for one that says
/// so, `not_translatable` for protocols that are never translated.
pub fn answer_to(
    engine: Protocol,
    client: Protocol,
    body: &[u8],
    context: &Context,
) -> Result<Vec<u8>, Fault> {
    if let Some(whole) = Object::parse(body)
        && whole.find("error").is_some()
        && engine != Protocol::Responses
    {
        return Err(engine_failed(engine_message(body).as_deref()));
    }
    let answer = match engine {
        Protocol::Chat => chat_answer::read_answer(body, &context.id)?,
        Protocol::Messages => messages::read_answer(body)?,
        Protocol::Responses => responses_answer::read_answer(body, &context.id)?,
        Protocol::Completions | Protocol::Embeddings | Protocol::CountTokens | Protocol::Other => {
            return Err(no_way(client, engine));
        }
    };
    match client {
        Protocol::Chat => Ok(chat_answer::write_answer(&answer, context)),
        Protocol::Completions => Ok(completions::write_answer(&answer, context)),
        Protocol::Responses => Ok(responses_answer::write_answer(&answer, context)),
        Protocol::Messages => Ok(messages::write_answer(&answer, context)),
        Protocol::Embeddings | Protocol::CountTokens | Protocol::Other => Err(no_way(client, engine)),
    }
}

fn no_way(client: Protocol, engine: Protocol) -> Fault {
    let told =
        format!("A {} call cannot be sent to an engine that speaks {}.", client.as_str(), engine.as_str());
    Fault::new(Code::NotTranslatable, told)
}

/// A fault found in an engine's answer is the engine's, not the caller's.
pub(crate) fn garbled(fault: Fault) -> Fault {
    let told = match fault.param {
        Some(field) => format!("The engine's answer could not be understood at `{field}`."),
        None => "The engine's answer could not be understood.".to_owned(),
    };
    Fault::new(Code::EngineGarbled, told)
}

/// The engine reports its own failure inside an answer.
pub(crate) fn engine_failed(told: Option<&str>) -> Fault {
    match told {
        Some(told) => Fault::new(Code::EngineFailed, format!("The engine failed while answering: {told}")),
        None => Fault::plain(Code::EngineFailed),
    }
}
