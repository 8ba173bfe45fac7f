"""TFLite files: conversion, reading, selective quantization, and what a file is expected to compute in."""
