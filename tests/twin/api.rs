//! The API server as one client sees it: whoever it says it is.

use axum::http::{Method, Request};
use http_body_util::BodyExt as _;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::harness::{ControlPlane, Result};

/// The administrator, who may speak for others.
pub(crate) struct Api {
    client: Client,
    runtime: Runtime,
}

/// What the API server said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) status: u16,
    pub(crate) body: Value,
    /// The headers that kubectl prints as warnings.
    pub(crate) warnings: Vec<String>,
}

impl Said {
    pub(crate) fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or_default()
    }

    /// An error where the API server refused.
    pub(crate) fn succeeded(self) -> Result<Value> {
        if self.status < 300 { Ok(self.body) } else { Err(self.message().to_owned().into()) }
    }
}

impl Api {
    pub(crate) fn new(plane: &ControlPlane) -> Result<Self> {
        let runtime = Runtime::new()?;
        let kubeconfig = Kubeconfig::read_from(&plane.admin().kubeconfig)?;
        let client = runtime.block_on(async {
            let options = KubeConfigOptions::default();
            let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
            config.map_err(|error| error.to_string()).map(Client::try_from)
        })??;
        Ok(Self { client, runtime })
    }

    pub(crate) fn ask(
        &self,
        method: Method,
        path: &str,
        user: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Said> {
        let mut request =
            Request::builder().method(method).uri(path).header("content-type", "application/json");
        if let Some(user) = user {
            request = request.header("impersonate-user", user);
        }
        let body = body.map_or_else(Vec::new, |body| body.to_string().into_bytes());
        let request = request.body(Body::from(body))?;
        self.runtime.block_on(async {
            let response = self.client.send(request).await?;
            let status = response.status().as_u16();
            let warnings = response.headers().get_all("warning").iter();
            let warnings =
                warnings.map(|text| String::from_utf8_lossy(text.as_bytes()).into_owned());
            let warnings = warnings.collect();
            let body = response.into_body().collect().await?.to_bytes();
            Ok(Said { status, body: serde_json::from_slice(&body)?, warnings })
        })
    }

    pub(crate) fn create(&self, path: &str, object: &Value) -> Result<Value> {
        self.ask(Method::POST, path, None, Some(object))?.succeeded()
    }

    /// That it is not there is fine.
    pub(crate) fn delete(&self, path: &str) -> Result {
        let said = self.ask(Method::DELETE, path, None, None)?;
        if said.status == 404 { Ok(()) } else { said.succeeded().map(drop) }
    }
}
