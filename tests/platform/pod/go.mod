// What the Pods of the node tests run.
module sluicegate.dev/platform/pod

go 1.26.0
