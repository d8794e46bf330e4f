// Package crds imports one package of github.com/cert-manager/cert-manager, so that go.mod keeps the requirement.
package crds

import _ "github.com/cert-manager/cert-manager/pkg/apis/certmanager"
