use serde_json::{Value, json};

/// A request, as far as the routes of the worlds tell requests apart.
#[derive(Debug, Clone, Default)]
pub(crate) struct Request {
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    pub(crate) query: Option<(&'static str, &'static str)>,
    pub(crate) header: Option<(&'static str, &'static str)>,
}

/// The header that the worlds speak of; a request without it says so, because `withoutHeaders` asks.
const HEADER: &str = "x-beta";

impl Request {
    /// Enough to take every route that the worlds hold.
    pub(crate) fn all() -> Vec<Self> {
        let plain = Self { method: "GET", path: "/", ..Self::default() };
        let beta = Self { header: Some((HEADER, "1")), ..plain.clone() };
        let other = Self { header: Some((HEADER, "2")), ..plain.clone() };
        let yes = Self { query: Some(("beta", "yes")), ..plain.clone() };
        let mut all = vec![plain.clone(), beta.clone(), other, yes];
        for path in ["/pay", "/PAY", "/payment/1", "/cart", "/paper"] {
            all.push(Self { path, ..plain.clone() });
        }
        all.push(Self { path: "/pay", ..beta });
        all.push(Self { path: "/pay", method: "POST", ..plain });
        all
    }

    /// The request as the alternative of a route that takes exactly this request.
    pub(crate) fn as_match(&self) -> Value {
        let mut own = json!({
            "uri": { "exact": self.path }, "method": { "exact": self.method }, "scheme": { "exact": "http" },
        });
        match self.header {
            Some((name, value)) => own["headers"] = json!({ name: { "exact": value } }),
            None => own["withoutHeaders"] = json!({ HEADER: {} }),
        }
        if let Some((name, value)) = self.query {
            own["queryParams"] = json!({ name: { "exact": value } });
        }
        own
    }

    /// Whether Envoy's `RouteMatch` takes it: independent of how we read Istio's words.
    pub(crate) fn satisfies(&self, route: &Value) -> bool {
        self.satisfies_path(route)
            && items(route, "headers").all(|header| self.satisfies_header(header))
            && items(route, "query_parameters").all(|query| self.satisfies_query(query))
    }

    fn satisfies_path(&self, route: &Value) -> bool {
        let fold = route["case_sensitive"] == false;
        let same = |text: &str| if fold { text.to_lowercase() } else { text.to_owned() };
        let path = same(self.path);
        if let Some(prefix) = route["prefix"].as_str() {
            path.starts_with(&same(prefix))
        } else if let Some(exact) = route["path"].as_str() {
            path == same(exact)
        } else if let Some(regex) = route["safe_regex"]["regex"].as_str() {
            matches_regex(regex, self.path)
        } else if let Some(prefix) = route["path_separated_prefix"].as_str() {
            path == same(prefix) || path.starts_with(&format!("{}/", same(prefix)))
        } else {
            panic!("a path match that this test does not know: {route}")
        }
    }

    fn satisfies_header(&self, header: &Value) -> bool {
        let name = header["name"].as_str().unwrap_or_default();
        let value = match name {
            ":method" => Some(self.method),
            ":scheme" => Some("http"),
            name => self.header.filter(|(own, _)| *own == name).map(|(_, value)| value),
        };
        let value = match value {
            None if header["treat_missing_header_as_empty"] == true => Some(""),
            other => other,
        };
        let holds = if let Some(wanted) = header["present_match"].as_bool() {
            value.is_some() == wanted
        } else {
            value.is_some_and(|value| satisfies_text(&header["string_match"], value))
        };
        holds != (header["invert_match"] == true)
    }

    fn satisfies_query(&self, query: &Value) -> bool {
        let name = query["name"].as_str().unwrap_or_default();
        let value = self.query.filter(|(own, _)| *own == name).map(|(_, value)| value);
        if query["present_match"] == true {
            return value.is_some();
        }
        value.is_some_and(|value| satisfies_text(&query["string_match"], value))
    }
}

fn satisfies_text(matcher: &Value, value: &str) -> bool {
    if let Some(exact) = matcher["exact"].as_str() {
        value == exact
    } else if let Some(prefix) = matcher["prefix"].as_str() {
        value.starts_with(prefix)
    } else if let Some(regex) = matcher["safe_regex"]["regex"].as_str() {
        matches_regex(regex, value)
    } else {
        panic!("a text match that this test does not know: {matcher}")
    }
}

/// The expressions that the worlds use: literal text with `.*` and `.+` behind it.
fn matches_regex(regex: &str, text: &str) -> bool {
    match regex.strip_suffix(".*") {
        Some(prefix) => text.starts_with(prefix),
        None => match regex.strip_suffix(".+") {
            Some(prefix) => text.len() > prefix.len() && text.starts_with(prefix),
            None => text == regex,
        },
    }
}

fn items<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    value[field].as_array().into_iter().flatten()
}
