"""The names that a Keras 2 file may use: Keras objects that compute, and TensorFlow's arithmetic.

Deliberately excluded are objects that read files, import modules, run Python code, or look up attributes by name:
Lambda, ClassMethod, InstanceMethod, InstanceProperty, TensorFlowOpLayer, TFSMLayer, FeatureSpace, the feature columns
(DenseFeatures, SequenceFeatures, LinearModel, WideDeepModel) and the cell wrappers with functions.
"""

from collections.abc import Mapping

from experiments.model.known_names import KnownNames

_SPATIAL = (
    "AveragePooling", "AvgPool", "Conv", "Convolution", "Conv{}Transpose", "Convolution{}Transpose", "ConvLSTM",
    "Cropping", "GlobalAveragePooling", "GlobalAvgPool", "GlobalMaxPool", "GlobalMaxPooling", "LocallyConnected",
    "MaxPool", "MaxPooling", "SpatialDropout", "UpSampling", "ZeroPadding", "DepthwiseConv", "SeparableConv",
    "SeparableConvolution",
)  # fmt: skip
_DIMENSIONAL = {
    name.format(f"{n}D") if "{}" in name else f"{name}{n}D" for name in _SPATIAL for n in (1, 2, 3)
}  # names that Keras does not have do no harm: Keras rejects them
LAYERS = frozenset(
    {
        "Activation", "ActivityRegularization", "Add", "AdditiveAttention", "AlphaDropout", "Attention", "Average",
        "BatchNormalization", "Bidirectional", "CategoryEncoding", "CenterCrop", "Concatenate", "CuDNNGRU",
        "CuDNNLSTM", "Dense", "Discretization", "Dot", "Dropout", "ELU", "EinsumDense", "Embedding", "Flatten", "GRU",
        "GRUCell", "GaussianDropout", "GaussianNoise", "GroupNormalization", "HashedCrossing", "Hashing", "Identity",
        "InputLayer", "IntegerLookup", "LSTM", "LSTMCell", "LayerNormalization", "LeakyReLU", "Masking", "Maximum",
        "Minimum", "MultiHeadAttention", "Multiply", "Normalization", "PReLU", "Permute", "RNN", "RandomBrightness",
        "RandomContrast", "RandomCrop", "RandomFlip", "RandomHeight", "RandomRotation", "RandomTranslation",
        "RandomWidth", "RandomZoom", "ReLU", "RepeatVector", "Rescaling", "Reshape", "Resizing", "SimpleRNN",
        "SimpleRNNCell", "Softmax", "SpectralNormalization", "StackedRNNCells", "StringLookup", "Subtract",
        "SyncBatchNormalization", "TextVectorization", "ThresholdedReLU", "TimeDistributed", "UnitNormalization",
        *_DIMENSIONAL,
    }
)  # fmt: skip
MODELS = frozenset({"Functional", "Model", "Sequential"})
OPERATIONS_AS_LAYERS = frozenset({"SlicingOpLambda", "TFOpLambda"})
_INITIALIZERS = frozenset(
    {
        "Constant", "GlorotNormal", "GlorotUniform", "HeNormal", "HeUniform", "Identity", "LecunNormal",
        "LecunUniform", "Ones", "Orthogonal", "RandomNormal", "RandomUniform", "TruncatedNormal", "VarianceScaling",
        "Zeros",
    }
)  # fmt: skip
INITIALIZERS = frozenset(
    {
        *_INITIALIZERS, "constant", "glorot_normal", "glorot_uniform", "he_normal", "he_uniform", "identity",
        "lecun_normal", "lecun_uniform", "normal", "one", "ones", "orthogonal", "random_normal", "random_uniform",
        "truncated_normal", "uniform", "variance_scaling", "zero", "zeros",
    }
)  # fmt: skip
REGULARIZERS = frozenset({"L1", "L1L2", "L2", "OrthogonalRegularizer", "l1", "l1_l2", "l2", "orthogonal_regularizer"})
CONSTRAINTS = frozenset(
    {
        "MaxNorm", "MinMaxNorm", "NonNeg", "RadialConstraint", "UnitNorm", "max_norm", "maxnorm", "min_max_norm",
        "non_neg", "nonneg", "radial_constraint", "unit_norm", "unitnorm",
    }
)  # fmt: skip
ACTIVATION_FUNCTIONS = frozenset(
    {
        "elu", "exponential", "gelu", "hard_sigmoid", "leaky_relu", "linear", "log_softmax", "mish", "relu", "relu6",
        "selu", "sigmoid", "silu", "softmax", "softplus", "softsign", "swish", "tanh",
    }
)  # fmt: skip
ACTIVATIONS = ACTIVATION_FUNCTIONS | {"ELU", "LeakyReLU", "PReLU", "ReLU", "Softmax", "ThresholdedReLU"}
_LOSSES = frozenset(
    {
        "BinaryCrossentropy", "BinaryFocalCrossentropy", "CategoricalCrossentropy", "CategoricalFocalCrossentropy",
        "CategoricalHinge", "CosineSimilarity", "Hinge", "Huber", "KLDivergence", "LogCosh", "MeanAbsoluteError",
        "MeanAbsolutePercentageError", "MeanSquaredError", "MeanSquaredLogarithmicError", "Poisson",
        "SparseCategoricalCrossentropy", "SquaredHinge",
    }
)  # fmt: skip
_LOSS_FUNCTIONS = frozenset(
    {
        "KLD", "MAE", "MAPE", "MSE", "MSLE", "binary_crossentropy", "binary_focal_crossentropy",
        "categorical_crossentropy", "categorical_focal_crossentropy", "categorical_hinge", "cosine_similarity",
        "hinge", "huber", "kl_divergence", "kld", "log_cosh", "logcosh", "mae", "mape", "mean_absolute_error",
        "mean_absolute_percentage_error", "mean_squared_error", "mean_squared_logarithmic_error", "mse", "msle",
        "poisson", "sparse_categorical_crossentropy", "squared_hinge",
    }
)  # fmt: skip
_METRICS = frozenset(
    {
        "AUC", "Accuracy", "BinaryAccuracy", "BinaryCrossentropy", "BinaryIoU", "CategoricalAccuracy",
        "CategoricalCrossentropy", "CategoricalHinge", "CosineSimilarity", "F1Score", "FBetaScore", "FalseNegatives",
        "FalsePositives", "Hinge", "IoU", "KLDivergence", "LogCoshError", "Mean", "MeanAbsoluteError",
        "MeanAbsolutePercentageError", "MeanIoU", "MeanMetricWrapper", "MeanRelativeError", "MeanSquaredError",
        "MeanSquaredLogarithmicError", "MeanTensor", "OneHotIoU", "OneHotMeanIoU", "Poisson", "Precision",
        "PrecisionAtRecall", "R2Score", "Recall", "RecallAtPrecision", "RootMeanSquaredError",
        "SensitivityAtSpecificity", "SparseCategoricalAccuracy", "SparseCategoricalCrossentropy",
        "SparseTopKCategoricalAccuracy", "SpecificityAtSensitivity", "SquaredHinge", "Sum", "TopKCategoricalAccuracy",
        "TrueNegatives", "TruePositives",
    }
)  # fmt: skip
_METRIC_FUNCTIONS = _LOSS_FUNCTIONS | {
    "binary_accuracy", "categorical_accuracy", "sparse_categorical_accuracy", "sparse_top_k_categorical_accuracy",
    "top_k_categorical_accuracy",
}  # fmt: skip
_OPTIMIZERS = frozenset(
    {"Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "Ftrl", "Lion", "Nadam", "RMSprop", "SGD"}
)
_SCHEDULES = frozenset(
    {
        "CosineDecay", "CosineDecayRestarts", "ExponentialDecay", "InverseTimeDecay", "PiecewiseConstantDecay",
        "PolynomialDecay",
    }
)  # fmt: skip
_POLICIES = frozenset({"LossScaleOptimizer", "Policy", "PolicyV1"})

# By module, as the two generations of Keras 2 write it: keras and tf_keras stand for the same package.
_OF_KERAS: Mapping[str, frozenset[str]] = {
    "": frozenset({"Model", "Sequential"}),
    "models": MODELS,
    "layers": LAYERS,
    "layers.experimental": LAYERS,
    "layers.experimental.preprocessing": LAYERS,
    "initializers": INITIALIZERS,
    "regularizers": REGULARIZERS,
    "constraints": CONSTRAINTS,
    "losses": _LOSSES,
    "metrics": _METRICS,
    "optimizers": _OPTIMIZERS,
    "optimizers.experimental": _OPTIMIZERS,
    "optimizers.legacy": _OPTIMIZERS,
    "optimizers.schedules": _SCHEDULES,
    "mixed_precision": _POLICIES,
    "src.engine.base_layer": frozenset({"AddLoss", "AddMetric"}),
    "src.engine.functional": frozenset({"Functional"}),
    "src.engine.sequential": frozenset({"Sequential"}),
    "src.engine.training": frozenset({"Model"}),
    "src.layers.core.tf_op_layer": OPERATIONS_AS_LAYERS,
    "src.applications.convnext": frozenset({"LayerScale", "StochasticDepth"}),
    "src.applications.inception_resnet_v2": frozenset({"CustomScaleLayer"}),
}
_FUNCTIONS_OF_KERAS: Mapping[str, frozenset[str]] = {
    "activations": ACTIVATION_FUNCTIONS,
    "src.activations": ACTIVATION_FUNCTIONS,
    "losses": _LOSS_FUNCTIONS,
    "src.losses": _LOSS_FUNCTIONS,
    "metrics": _METRIC_FUNCTIONS,
    "src.metrics": _METRIC_FUNCTIONS,
}
_PACKAGES = ("keras", "tf_keras")


def _in_both(modules: Mapping[str, frozenset[str]]) -> dict[str, frozenset[str]]:
    return {f"{package}.{module}".strip("."): names for package in _PACKAGES for module, names in modules.items()}


CLASSES_BY_MODULE: Mapping[str, frozenset[str]] = {
    **_in_both(_OF_KERAS),
    "tensorflow.python.ops.init_ops_v2": _INITIALIZERS,
}
FUNCTIONS_BY_MODULE: Mapping[str, frozenset[str]] = {
    **_in_both(_FUNCTIONS_OF_KERAS),
    "builtins": ACTIVATION_FUNCTIONS | _METRIC_FUNCTIONS,  # Keras' own, as it writes them
    "tensorflow.python.ops.gen_nn_ops": ACTIVATION_FUNCTIONS,
    "tensorflow.python.ops.math_ops": ACTIVATION_FUNCTIONS,
    "tensorflow.python.ops.nn_impl": ACTIVATION_FUNCTIONS,
    "tensorflow.python.ops.nn_ops": ACTIVATION_FUNCTIONS,
}
# Names under which Keras registers classes of its own, and such that only older files hold.
REGISTERED = frozenset({"Custom>CustomScaleLayer"})
_OF_OLDER_FILES = frozenset(
    {f"{name}V{n}" for name in ("BatchNormalization", "GRU", "GRUCell", "LSTM", "LSTMCell") for n in (1, 2)}
    | {f"{name}V2" for name in _INITIALIZERS}
)
CLASSES_WITHOUT_MODULE = frozenset().union(*_OF_KERAS.values(), REGISTERED, _OF_OLDER_FILES)
FUNCTIONS_WITHOUT_MODULE = ACTIVATION_FUNCTIONS | _METRIC_FUNCTIONS

_ARITHMETIC = """
    abs acos acosh add add_n angle argmax argmin asin asinh atan atan2 atanh bincount ceil conj cos cosh count_nonzero
    cumprod cumsum cumulative_logsumexp digamma divide divide_no_nan equal erf erfc erfcinv erfinv exp expm1 floor
    floordiv floormod greater greater_equal imag in_top_k is_finite is_inf is_nan l2_normalize less less_equal lgamma
    log log1p log_sigmoid log_softmax logical_and logical_not logical_or logical_xor maximum minimum mod multiply
    multiply_no_nan negative not_equal polyval pow real reciprocal reciprocal_no_nan reduce_all reduce_any
    reduce_euclidean_norm reduce_logsumexp reduce_max reduce_mean reduce_min reduce_prod reduce_std reduce_sum
    reduce_variance rint round rsqrt scalar_mul segment_max segment_mean segment_min segment_prod segment_sum sigmoid
    sign sin sinh softmax softplus softsign sqrt square squared_difference subtract tan tanh top_k truediv
    unsorted_segment_max unsorted_segment_mean unsorted_segment_min unsorted_segment_prod unsorted_segment_sqrt_n
    unsorted_segment_sum xdivy xlog1py xlogy zero_fraction
"""
_NEURAL = """
    atrous_conv2d atrous_conv2d_transpose avg_pool avg_pool1d avg_pool2d avg_pool3d avg_pool_v2 batch_normalization
    bias_add conv1d conv1d_transpose conv2d conv2d_transpose conv3d conv3d_transpose conv_transpose convolution crelu
    depth_to_space depthwise_conv2d depthwise_conv2d_native dilation2d dropout elu embedding_lookup erosion2d
    fused_batch_norm gelu l2_loss l2_normalize leaky_relu local_response_normalization log_softmax lrn max_pool
    max_pool1d max_pool2d max_pool3d max_pool_v2 max_pool_with_argmax moments pool relu relu6 selu separable_conv2d
    sigmoid silu softmax softplus softsign space_to_batch space_to_depth swish tanh top_k weighted_moments
    zero_fraction
"""
_ARRAYS = """
    argsort batch_to_space bitcast boolean_mask broadcast_to cast clip_by_norm clip_by_value concat convert_to_tensor
    einsum ensure_shape expand_dims eye fill gather gather_nd histogram_fixed_width identity identity_n linspace matmul
    meshgrid norm one_hot ones ones_like pad range rank repeat reshape reverse reverse_sequence roll saturate_cast
    scatter_nd searchsorted sequence_mask shape shape_n size slice sort space_to_batch space_to_batch_nd split squeeze
    stack stop_gradient strided_slice tensor_scatter_nd_add tensor_scatter_nd_max tensor_scatter_nd_min
    tensor_scatter_nd_sub tensor_scatter_nd_update tensordot tile transpose unique unravel_index unstack where zeros
    zeros_like
"""
_LINEAR_ALGEBRA = """
    adjoint band_part cholesky cross det diag diag_part einsum expm eye inv l2_normalize logdet matmul
    matrix_transpose matvec norm normalize pinv qr set_diag solve svd tensor_diag tensor_diag_part tensordot trace
"""
_SIGNAL = """
    dct fft fft2d fft3d fftshift frame hamming_window hann_window idct ifft ifft2d ifft3d ifftshift inverse_stft irfft
    irfft2d irfft3d kaiser_window linear_to_mel_weight_matrix mdct mfccs_from_log_mel_spectrograms overlap_and_add rfft
    rfft2d rfft3d stft
"""
_IMAGES = """
    adjust_brightness adjust_contrast adjust_gamma adjust_hue adjust_saturation central_crop convert_image_dtype
    crop_and_resize crop_to_bounding_box extract_patches flip_left_right flip_up_down grayscale_to_rgb hsv_to_rgb
    non_max_suppression pad_to_bounding_box per_image_standardization resize resize_bicubic resize_bilinear
    resize_image_with_crop_or_pad resize_images resize_nearest_neighbor resize_with_crop_or_pad resize_with_pad
    rgb_to_grayscale rgb_to_hsv rgb_to_yiq rgb_to_yuv rot90 sobel_edges total_variation transpose yiq_to_rgb yuv_to_rgb
"""
_QUANTIZATION = """
    fake_quant_with_min_max_args fake_quant_with_min_max_vars fake_quant_with_min_max_vars_per_channel
    quantize_and_dequantize quantize_and_dequantize_v2
"""
_BACKEND = """
    abs all any argmax argmin batch_dot batch_flatten bias_add cast clip concatenate constant conv1d conv2d
    conv2d_transpose conv3d cos cumprod cumsum depthwise_conv2d dot elu equal exp expand_dims flatten gather greater
    greater_equal hard_sigmoid l2_normalize less less_equal log max maximum mean min minimum not_equal one_hot
    ones_like permute_dimensions pool2d pool3d pow prod relu repeat repeat_elements reshape resize_images reverse round
    separable_conv2d shape sigmoid sign sin softmax softplus softsign spatial_2d_padding sqrt square squeeze stack std
    stop_gradient sum tanh temporal_padding tile transpose var zeros_like
"""
_OPERATORS = "add eq getitem ne ragged_getitem"
# TensorFlow's functions that layers of operations may call, without the compat.v1 that may stand before them. None of
# them reads or writes files, calls Python, or takes a function.
OPERATIONS = frozenset(
    f"{module}.{name}".strip(".")
    for module, names in (
        ("", _ARITHMETIC + _ARRAYS),
        ("math", _ARITHMETIC),
        ("nn", _NEURAL),
        ("linalg", _LINEAR_ALGEBRA),
        ("signal", _SIGNAL),
        ("image", _IMAGES),
        ("quantization", _QUANTIZATION),
        ("__operators__", _OPERATORS),
        ("keras.backend", _BACKEND),
        ("keras.activations", " ".join(ACTIVATION_FUNCTIONS)),
    )
    for name in names.split()
)
NAMES = KnownNames(
    classes=CLASSES_BY_MODULE,
    classes_without_module=CLASSES_WITHOUT_MODULE,
    functions=FUNCTIONS_BY_MODULE,
    functions_without_module=FUNCTIONS_WITHOUT_MODULE,
    by_key={
        "activation": ACTIVATIONS,
        "initializer": INITIALIZERS,
        "regularizer": REGULARIZERS,
        "constraint": CONSTRAINTS,
        "fn": FUNCTIONS_WITHOUT_MODULE,
    },
    registered=REGISTERED,
    operations=OPERATIONS,
    operations_as_layers=OPERATIONS_AS_LAYERS,
)
