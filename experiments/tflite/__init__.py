"""TFLite files: conversion, reading, selective quantization, and the expectation of a file."""
