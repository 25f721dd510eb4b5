//! The name of an object.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// The namespace and the name of an object: `shop/web`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct KubeName {
    pub namespace: String,
    pub name: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{0}` is not NAMESPACE/NAME, such as default/web")]
pub struct KubeNameError(String);

impl FromStr for KubeName {
    type Err = KubeNameError;

    fn from_str(text: &str) -> Result<Self, KubeNameError> {
        match text.split_once('/') {
            Some((namespace, name))
                if !namespace.is_empty() && !name.is_empty() && !name.contains('/') =>
            {
                Ok(Self {
                    namespace: namespace.to_owned(),
                    name: name.to_owned(),
                })
            }
            _ => Err(KubeNameError(text.to_owned())),
        }
    }
}

impl fmt::Display for KubeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_a_namespace() {
        let name: KubeName = "shop/web".parse().expect("it is a name");
        assert_eq!(name.to_string(), "shop/web");
        for text in ["web", "/web", "shop/", "a/b/c", ""] {
            let error = text.parse::<KubeName>().expect_err(text);
            let words = format!("`{text}` is not NAMESPACE/NAME, such as default/web");
            assert_eq!(error.to_string(), words);
        }
    }
}
