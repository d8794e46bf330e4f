//! Which roots name which delegates.

use std::collections::{BTreeSet, HashMap};

use super::World;
use crate::istio::{Delegate, VirtualService};

/// Namespace and name of an object.
type Name = (String, String);

/// Which VirtualServices put the routes of which others in the place of their own.
#[derive(Debug, Default)]
pub(super) struct Delegates {
    roots: HashMap<Name, BTreeSet<Name>>,
    named: HashMap<Name, Vec<Name>>,
}

impl Delegates {
    pub(super) fn apply(&mut self, object: &VirtualService) {
        let root = (object.metadata.namespace.clone(), object.metadata.name.clone());
        self.delete(&root.0, &root.1);
        if object.spec.is_delegate() {
            return;
        }
        let named = object.spec.http.iter().filter_map(|route| route.delegate.as_ref());
        let named = named
            .map(|to| (to.namespace_from(&root.0).to_owned(), to.name.clone()))
            .collect::<BTreeSet<_>>();
        for delegate in &named {
            self.roots.entry(delegate.clone()).or_default().insert(root.clone());
        }
        if !named.is_empty() {
            self.named.insert(root, named.into_iter().collect());
        }
    }

    pub(super) fn delete(&mut self, namespace: &str, name: &str) {
        let root = (namespace.to_owned(), name.to_owned());
        for delegate in self.named.remove(&root).into_iter().flatten() {
            let Some(roots) = self.roots.get_mut(&delegate) else { continue };
            roots.remove(&root);
            if roots.is_empty() {
                self.roots.remove(&delegate);
            }
        }
    }
}

/// Why a root's route that names a delegate is skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoDelegate {
    /// There is no VirtualService of that name, or it has hosts and so can be nobody's delegate.
    Missing,
    /// Its `exportTo` does not name the root's namespace.
    NotExported,
}

impl World {
    /// The VirtualServices of which a route names the delegate `name` of `namespace`, sorted by namespace and name.
    pub fn roots_of(&self, namespace: &str, name: &str) -> impl Iterator<Item = &VirtualService> {
        let roots = self.delegates.roots.get(&(namespace.to_owned(), name.to_owned()));
        let roots = roots.into_iter().flatten();
        roots.filter_map(|(namespace, name)| self.virtual_service(namespace, name))
    }

    /// The delegate that a route of an object of `namespace` names.
    ///
    /// # Errors
    /// Where Istio skips the route, and why.
    ///
    /// Source: `pilot/pkg/model/virtualservice_controller.go` `mergeVirtualServices`.
    pub fn delegate(&self, to: &Delegate, namespace: &str) -> Result<&VirtualService, NoDelegate> {
        let object = self.virtual_service(to.namespace_from(namespace), &to.name);
        let object = object.filter(|object| object.spec.is_delegate());
        let object = object.ok_or(NoDelegate::Missing)?;
        if self.is_exported(object, &object.metadata.namespace, namespace) {
            Ok(object)
        } else {
            Err(NoDelegate::NotExported)
        }
    }

    /// Whether `object`, of namespace `own`, is exported to `namespace`. [`super::ANY_NAMESPACE`] asks whether it is exported
    /// to everybody.
    pub fn is_exported(&self, object: &VirtualService, own: &str, namespace: &str) -> bool {
        let written = &object.spec.export_to;
        let default = &self.mesh.default_virtual_service_export_to;
        let to = if written.is_empty() { default } else { written };
        to.is_empty()
            || to.iter().any(|to| match to.as_str() {
                "*" => true,
                "." => own == namespace,
                to => to == namespace,
            })
    }
}
