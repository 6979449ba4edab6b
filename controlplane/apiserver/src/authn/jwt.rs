//! Service-account tokens: signing, verifying and publishing the key. ES256 over the cluster's service-account key.
//! Whether the objects a token is bound to still exist is `service_account`'s question.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rcgen::{KeyPair, PublicKeyData};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Why the signing key is unusable, or a token is refused.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The key is no PKCS#8 ECDSA P-256 key.
    #[error("the service-account key is not an ECDSA P-256 key in PKCS#8 PEM")]
    Key(#[source] rcgen::Error),
    /// The key is of another curve.
    #[error("the service-account key must be ECDSA P-256")]
    Curve,
    /// The library refused key or token.
    #[error("the token is not valid")]
    Jwt(#[from] jsonwebtoken::errors::Error),
    /// Right signature, wrong content.
    #[error("the token is refused: {0}")]
    Refused(&'static str),
}

/// An object that a token names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// Name.
    pub name: String,
    /// Uid, empty only for nodes that are gone.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

/// The claim `kubernetes.io`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Private {
    /// Namespace of the service account.
    pub namespace: String,
    /// Node the bound pod runs on, or the bound node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Reference>,
    /// Bound pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Reference>,
    /// Bound secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Reference>,
    /// The account.
    pub serviceaccount: Reference,
    /// Time after which use is worth a warning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warnafter: Option<i64>,
}

/// Claims of a service-account token. Times are seconds since the epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Audiences.
    pub aud: Vec<String>,
    /// Expiry.
    pub exp: i64,
    /// Issue time.
    pub iat: i64,
    /// Issuer.
    pub iss: String,
    /// Token id.
    pub jti: String,
    /// What the token is for.
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: Private,
    /// Not valid before.
    pub nbf: i64,
    /// `system:serviceaccount:NAMESPACE:NAME`
    pub sub: String,
}

/// Signs and verifies.
pub struct TokenSigner {
    encoding: EncodingKey,
    decoding: DecodingKey,
    key_id: String,
    point: (String, String),
    issuer: String,
}

impl TokenSigner {
    /// Reads the private key.
    pub fn new(key_pem: &str, issuer: &str) -> Result<Self, TokenError> {
        let pair = KeyPair::from_pem(key_pem).map_err(TokenError::Key)?;
        let raw = pair.der_bytes();
        let (Some(x), Some(y), 65) = (raw.get(1..33), raw.get(33..65), raw.len()) else {
            return Err(TokenError::Curve);
        };
        let point = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        let digest = Sha256::digest(pair.subject_public_key_info());
        Ok(Self {
            encoding: EncodingKey::from_ec_pem(key_pem.as_bytes())?,
            decoding: DecodingKey::from_ec_components(&point.0, &point.1)?,
            key_id: URL_SAFE_NO_PAD.encode(digest),
            point,
            issuer: issuer.to_owned(),
        })
    }

    /// Issuer and default audience.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The signed token.
    pub fn sign(&self, claims: &Claims) -> Result<String, TokenError> {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(self.key_id.clone());
        header.typ = None;
        Ok(jsonwebtoken::encode(&header, claims, &self.encoding)?)
    }

    /// Checks signature, issuer and times. Audiences are the caller's to compare.
    pub fn verify(&self, token: &str, now: i64) -> Result<Claims, TokenError> {
        let mut validation = Validation::new(Algorithm::ES256);
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        let claims = jsonwebtoken::decode::<Claims>(token, &self.decoding, &validation)?.claims;
        if claims.iss != self.issuer {
            return Err(TokenError::Refused("another issuer"));
        }
        if now >= claims.exp {
            return Err(TokenError::Refused("it has expired"));
        }
        if now + 60 < claims.nbf {
            return Err(TokenError::Refused("it is not valid yet"));
        }
        Ok(claims)
    }

    /// The key set at `/openid/v1/jwks`.
    pub fn key_set(&self) -> Value {
        json!({"keys": [{
            "use": "sig", "kty": "EC", "kid": self.key_id, "crv": "P-256", "alg": "ES256",
            "x": self.point.0, "y": self.point.1,
        }]})
    }

    /// The discovery document at `/.well-known/openid-configuration`.
    pub fn discovery(&self, jwks_uri: &str) -> Value {
        json!({
            "issuer": self.issuer,
            "jwks_uri": jwks_uri,
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(exp: i64) -> Claims {
        Claims {
            aud: vec!["a".into()],
            exp,
            iat: 100,
            iss: "https://issuer".into(),
            jti: "j".into(),
            kubernetes: Private {
                namespace: "n".into(),
                node: None,
                pod: None,
                secret: None,
                serviceaccount: Reference { name: "s".into(), uid: "u".into() },
                warnafter: None,
            },
            nbf: 100,
            sub: "system:serviceaccount:n:s".into(),
        }
    }

    #[test]
    fn verifies_its_own_tokens_until_they_expire() {
        let signer =
            TokenSigner::new(&KeyPair::generate().unwrap().serialize_pem(), "https://issuer").unwrap();
        let token = signer.sign(&claims(200)).unwrap();
        assert_eq!(signer.verify(&token, 150).unwrap().sub, "system:serviceaccount:n:s");
        assert!(signer.verify(&token, 200).is_err());
        let other =
            TokenSigner::new(&KeyPair::generate().unwrap().serialize_pem(), "https://issuer").unwrap();
        assert!(other.verify(&token, 150).is_err());
    }
}
