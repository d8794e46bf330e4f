// Package crds imports one package of istio.io/api, so that go.mod keeps the requirement.
package crds

import _ "istio.io/api/networking/v1"
