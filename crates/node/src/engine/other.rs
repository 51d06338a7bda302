//! The paths around generation: the list of models, and simple valid answers for
//! files, images, audio and moderations, against which pass-through is tested.

use std::sync::atomic::Ordering::Relaxed;

use http::{Method, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use seawall_model::{Protocol, limits};

use super::call::{answer, refuse, respond};
use super::flow::Body;
use super::json::{base64, id, number, raw, string};
use super::world::World;
use crate::clock;

/// A picture of one transparent point (PNG).
const PICTURE: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0\x1f\x15\xc4\x89\0\0\0\rIDATx\x9cc\0\x01\0\0\x05\0\x01\r\n-\xb4\0\0\0\0IEND\xaeB`\x82";

/// Lists the models: OpenAI's shape, with the fields of Anthropic's beside.
pub(super) fn models(world: &World) -> Response<Body> {
    let names = &world.settings.options.models;
    let mut out = Vec::with_capacity(128 + 160 * names.len());
    raw(&mut out, "{\"object\":\"list\",\"has_more\":false,\"first_id\":");
    push_name(&mut out, names.first());
    raw(&mut out, ",\"last_id\":");
    push_name(&mut out, names.last());
    raw(&mut out, ",\"data\":[");
    for (at, name) in names.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        push_model(&mut out, name);
    }
    raw(&mut out, "]}");
    answer(out)
}

fn push_name(out: &mut Vec<u8>, name: Option<&String>) {
    match name {
        Some(name) => string(out, name),
        None => raw(out, "null"),
    }
}

/// One model.
pub(super) fn model(world: &World, name: &str) -> Response<Body> {
    if !world.settings.serves(name) {
        return refuse(world, Protocol::Other, 404, &format!("The model `{name}` does not exist."));
    }
    let mut out = Vec::with_capacity(192);
    push_model(&mut out, name);
    answer(out)
}

fn push_model(out: &mut Vec<u8>, name: &str) {
    raw(out, "{\"id\":");
    string(out, name);
    raw(
        out,
        ",\"object\":\"model\",\"created\":1700000000,\"owned_by\":\"seawall\",\"type\":\"model\",\"display_name\":",
    );
    string(out, name);
    raw(out, ",\"created_at\":\"2023-11-14T22:13:20Z\"}");
}

/// Answers any other path under `/v1/`. Uploads are counted, not kept.
pub(super) async fn pass(world: &World, method: &Method, path: &str, body: Incoming) -> Response<Body> {
    let Ok(size) = swallow(body).await else {
        return refuse(world, Protocol::Other, 413, "The upload is too large or was broken off.");
    };
    let parts: Vec<&str> = path.trim_start_matches("/v1/").trim_end_matches('/').split('/').collect();
    let post = method == Method::POST;
    let mut out = Vec::with_capacity(256);
    match parts.as_slice() {
        ["files"] if post => file(world, &mut out, &id("file-", world.name()), size),
        ["files"] => raw(&mut out, "{\"object\":\"list\",\"data\":[],\"has_more\":false}"),
        ["files", name] if method == Method::DELETE => {
            raw(&mut out, "{\"id\":");
            string(&mut out, name);
            raw(&mut out, ",\"object\":\"file\",\"deleted\":true}");
        }
        ["files", name] => file(world, &mut out, name, 4),
        ["files", _, "content"] => {
            return respond(200, "application/octet-stream", Body::Full("wave".into()));
        }
        ["images", _] if post => {
            raw(&mut out, "{\"created\":1700000000,\"data\":[{\"b64_json\":\"");
            base64(&mut out, PICTURE);
            raw(&mut out, "\"}]}");
        }
        ["audio", "speech"] if post => {
            return respond(200, "audio/mpeg", Body::Full("sound of waves".into()));
        }
        ["audio", _] if post => raw(&mut out, "{\"text\":\"sound of waves\"}"),
        ["moderations"] if post => {
            raw(
                &mut out,
                "{\"id\":\"modr-sim\",\"model\":\"sim\",\"results\":[{\"flagged\":false,\"categories\":{},\"category_scores\":{}}]}",
            );
        }
        _ => return refuse(world, Protocol::Other, 404, "There is nothing at this path."),
    }
    answer(out)
}

fn file(world: &World, out: &mut Vec<u8>, name: &str, size: u64) {
    world.ledger.bytes.fetch_add(size, Relaxed);
    raw(out, "{\"id\":");
    string(out, name);
    raw(out, ",\"object\":\"file\",\"bytes\":");
    number(out, size);
    raw(out, ",\"created_at\":");
    number(out, clock::now().0 / 1_000_000);
    raw(out, ",\"filename\":\"upload\",\"purpose\":\"assistants\",\"status\":\"processed\"}");
}

/// Reads an upload to its end and gives its size.
async fn swallow(body: Incoming) -> Result<u64, Box<dyn std::error::Error + Send + Sync>> {
    let most = usize::try_from(limits::UPLOAD_BYTES_MAX).unwrap_or(usize::MAX);
    let mut body = Limited::new(body, most);
    let mut size = 0;
    while let Some(frame) = body.frame().await {
        size += frame?.data_ref().map_or(0, |data| data.len() as u64);
    }
    Ok(size)
}
