module github.com/selvage-edge/selvage/sdk/examples/httpbin

go 1.26.0

require (
	github.com/mccutchen/go-httpbin/v2 v2.26.0
	github.com/selvage-edge/selvage/sdk/go v0.0.0
)

replace github.com/selvage-edge/selvage/sdk/go => ../../go
