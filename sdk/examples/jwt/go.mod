module github.com/selvage-edge/selvage/sdk/examples/jwt

go 1.26.0

require github.com/selvage-edge/selvage/sdk/go v0.0.0

replace github.com/selvage-edge/selvage/sdk/go => ../../go
