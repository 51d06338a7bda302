//! Writes JSON text straight into a buffer, in the order the fields are given, with
//! pieces of already written JSON carried over as they are.

/// JSON text being written. Commas are its business; the shape is the caller's.
pub(crate) struct Writer<'a> {
    out: &'a mut Vec<u8>,
    comma: bool,
}

impl<'a> Writer<'a> {
    /// Appends to `out`.
    pub(crate) fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, comma: false }
    }

    fn value(&mut self) -> &mut Vec<u8> {
        if self.comma {
            self.out.push(b',');
        }
        self.comma = true;
        self.out
    }

    /// `{`
    pub(crate) fn open(&mut self) -> &mut Self {
        self.value().push(b'{');
        self.comma = false;
        self
    }

    /// `}`
    pub(crate) fn close(&mut self) -> &mut Self {
        self.out.push(b'}');
        self.comma = true;
        self
    }

    /// `[`
    pub(crate) fn open_list(&mut self) -> &mut Self {
        self.value().push(b'[');
        self.comma = false;
        self
    }

    /// `]`
    pub(crate) fn close_list(&mut self) -> &mut Self {
        self.out.push(b']');
        self.comma = true;
        self
    }

    /// A field's name; its value must follow.
    pub(crate) fn key(&mut self, name: &str) -> &mut Self {
        quote(name, self.value());
        self.out.push(b':');
        self.comma = false;
        self
    }

    /// A string.
    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        quote(text, self.value());
        self
    }

    /// A whole number.
    pub(crate) fn count(&mut self, count: u64) -> &mut Self {
        self.raw(&count.to_string())
    }

    /// A flag.
    pub(crate) fn flag(&mut self, flag: bool) -> &mut Self {
        self.raw(if flag { "true" } else { "false" })
    }

    /// `null`
    pub(crate) fn null(&mut self) -> &mut Self {
        self.raw("null")
    }

    /// A value that is JSON already.
    pub(crate) fn raw(&mut self, json: &str) -> &mut Self {
        self.value().extend_from_slice(json.as_bytes());
        self
    }

    /// A field that holds a string.
    pub(crate) fn field(&mut self, name: &str, text: &str) -> &mut Self {
        self.key(name).text(text)
    }

    /// A field that holds JSON already.
    pub(crate) fn carry(&mut self, name: &str, json: &str) -> &mut Self {
        self.key(name).raw(json)
    }

    /// A string where there is one, else null.
    pub(crate) fn text_or_null(&mut self, text: Option<&str>) -> &mut Self {
        match text {
            Some(text) => self.text(text),
            None => self.null(),
        }
    }

    /// A number; JSON has none for infinities, which become null.
    pub(crate) fn number(&mut self, number: f64) -> &mut Self {
        match serde_json::Number::from_f64(number) {
            // A whole value is written as such: 1.0 would be news to no server, but 1 is what was sent.
            Some(_) if number.fract() == 0.0 && number.abs() < 1e15 => self.raw(&format!("{number:.0}")),
            Some(number) => self.raw(&number.to_string()),
            None => self.null(),
        }
    }
}

/// Appends a JSON string.
pub(crate) fn quote(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("writing a string to memory does not fail");
}

/// A JSON document made by `write`.
pub(crate) fn written(write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    write(&mut Writer::new(&mut out));
    out
}

/// Appends a server-sent event.
pub(crate) fn event(out: &mut Vec<u8>, name: Option<&str>, write: impl FnOnce(&mut Writer<'_>)) {
    if let Some(name) = name {
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(name.as_bytes());
        out.push(b'\n');
    }
    out.extend_from_slice(b"data: ");
    write(&mut Writer::new(out));
    out.extend_from_slice(b"\n\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_stand_where_they_should() {
        let text = written(|w| {
            w.open().field("a", "x\"y").key("b").open_list().count(1).null().open().close().close_list();
            w.key("c").open().key("d").flag(true).close().carry("e", "[1]").close();
        });
        assert_eq!(text, br#"{"a":"x\"y","b":[1,null,{}],"c":{"d":true},"e":[1]}"#);
    }

    #[test]
    fn numbers_are_written_as_sent() {
        let text = written(|w| {
            w.open_list().number(1.0).number(0.7).number(f64::NAN).number(-3.0).close_list();
        });
        assert_eq!(text, b"[1,0.7,null,-3]");
    }
}
