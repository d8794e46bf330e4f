// The CRDs of Certificate and Issuer are plain files of this module; nothing of it is compiled.
module sluicegate.dev/platform/cert-manager

go 1.26.0

require github.com/cert-manager/cert-manager v1.21.2
