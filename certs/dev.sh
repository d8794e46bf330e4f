#!/bin/sh
# Makes a CA and a serving certificate for development, in certs/out/. Nothing there is ever committed.
#
#   certs/dev.sh [NAMESPACE [SERVICE]]      defaults: sluicegate sluicegate
set -eu

namespace=${1:-sluicegate}
service=${2:-sluicegate}
days=${DAYS:-30}
out=$(dirname "$0")/out

mkdir -p "$out"
cd "$out"
umask 077

openssl ecparam -name prime256v1 -genkey -noout -out ca.key
openssl req -x509 -new -sha256 -key ca.key -days "$days" -subj "/CN=sluicegate development CA" \
    -addext "basicConstraints=critical,CA:TRUE,pathlen:0" -addext "keyUsage=critical,keyCertSign,cRLSign" -out ca.crt

cat >leaf.cnf <<EOF
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = DNS:localhost, IP:127.0.0.1, IP:::1, DNS:$service.$namespace.svc, DNS:$service.$namespace.svc.cluster.local
EOF
# SEC1 first, PKCS#8 in the end: what a Secret of type kubernetes.io/tls most often holds.
openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt -out tls.key
openssl req -new -sha256 -key tls.key -subj "/CN=$service.$namespace.svc" -out leaf.csr
openssl x509 -req -sha256 -in leaf.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days "$days" \
    -extfile leaf.cnf -out tls.crt 2>/dev/null
# The CA's key has done its work; a stray CA is worse than a second run.
rm -f leaf.csr leaf.cnf ca.key ca.srl
openssl verify -CAfile ca.crt tls.crt >/dev/null

echo "certs/out/tls.crt and tls.key, for $days days; clients trust certs/out/ca.crt" >&2
