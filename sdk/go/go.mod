module github.com/selvage-edge/selvage/sdk/go

go 1.26.0
