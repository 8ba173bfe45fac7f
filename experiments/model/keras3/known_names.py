"""The names that a Keras 3 file may use: Keras objects and operations that compute.

Deliberately excluded are objects that read files, run Python code, or take functions: Lambda, TFSMLayer, FeatureSpace,
the layers of other backends (JaxLayer, FlaxLayer, TorchModuleWrapper), and the operations for control flow (Map, Scan,
WhileLoop, Cond and others). Keras' own safe mode lets most of them pass.
"""

from collections.abc import Mapping

from experiments.model.keras2 import known_names as keras2
from experiments.model.known_names import KnownNames

_ONLY_KERAS_2 = frozenset(
    {"CuDNNGRU", "CuDNNLSTM", "RandomHeight", "RandomWidth", "SyncBatchNormalization", "ThresholdedReLU"}
)
LAYERS = frozenset(
    {
        *keras2.LAYERS - _ONLY_KERAS_2, "AdaptiveAveragePooling1D", "AdaptiveAveragePooling2D",
        "AdaptiveAveragePooling3D", "AdaptiveMaxPooling1D", "AdaptiveMaxPooling2D", "AdaptiveMaxPooling3D", "AugMix",
        "AutoContrast", "ContrastLimitedAdaptiveHistogramEqualization", "CutMix", "Equalization",
        "GroupQueryAttention", "MaxNumBoundingBoxes", "MelSpectrogram", "MixUp", "Pipeline", "RMSNormalization",
        "RandAugment", "RandomColorDegeneration", "RandomColorJitter", "RandomElasticTransform", "RandomErasing",
        "RandomGaussianBlur", "RandomGrayscale", "RandomHue", "RandomInvert", "RandomPerspective",
        "RandomPosterization", "RandomSaturation", "RandomSharpness", "RandomShear", "ReversibleEmbedding",
        "STFTSpectrogram", "Solarization",
    }
)  # fmt: skip
OTHER_BACKENDS = frozenset({"FlaxLayer", "JaxLayer", "TorchModuleWrapper"})
QUANTIZED = frozenset(
    {
        "AWQDTypePolicy", "GPTQDTypePolicy", "Int4DTypePolicy", "QuantizedDTypePolicy", "QuantizedFloat8DTypePolicy",
        "AWQConfig", "Float8QuantizationConfig", "GPTQConfig", "Int4QuantizationConfig", "Int8QuantizationConfig",
    }
)  # fmt: skip
INITIALIZERS = keras2.INITIALIZERS | {"IdentityInitializer", "OrthogonalInitializer", "STFT", "STFTInitializer", "stft"}
ACTIVATION_FUNCTIONS = keras2.ACTIVATION_FUNCTIONS | {
    "celu", "glu", "hard_shrink", "hard_silu", "hard_swish", "hard_tanh", "log_sigmoid", "soft_shrink", "sparse_plus",
    "sparse_sigmoid", "sparsemax", "squareplus", "tanh_shrink", "threshold",
}  # fmt: skip
ACTIVATIONS = ACTIVATION_FUNCTIONS | {"ELU", "LeakyReLU", "PReLU", "ReLU", "Softmax"}
_ARITHMETIC = frozenset({"abs", "absolute", "cos", "erf", "exp", "log", "negative", "sin", "sqrt", "square", "tan"})
_LOSSES = keras2._LOSSES | {"CTC", "CategoricalGeneralizedCrossEntropy", "Circle", "Dice", "Tversky"}
_LOSS_FUNCTIONS = keras2._LOSS_FUNCTIONS | {
    "categorical_generalized_cross_entropy", "circle", "ctc", "dice", "tversky",
}  # fmt: skip
_METRICS = keras2._METRICS | {"ConcordanceCorrelation", "PearsonCorrelation"}
_METRIC_FUNCTIONS = keras2._METRIC_FUNCTIONS | _LOSS_FUNCTIONS | {"concordance_correlation", "pearson_correlation"}
_OPTIMIZERS = keras2._OPTIMIZERS | {"Lamb", "LossScaleOptimizer", "Muon", "ScheduleFreeAdamW"}
_POLICIES = frozenset({"DTypePolicy", "DTypePolicyMap", "FloatDTypePolicy"})

# Operations of functional models, by the modules of keras.src.ops in which they are.
OPERATIONS: Mapping[str, frozenset[str]] = {
    f"keras.src.ops.{module}": frozenset(names.split())
    for module, names in {
        "core": """
            Cast ConvertToTensor SaturateCast Scatter ScatterUpdate Slice SliceUpdate StopGradient Unstack
        """,
        "einops": "Rearrange",
        "image": """
            AffineTransform CropImages ElasticTransform ExtractPatches GaussianBlur HSVToRGB MapCoordinates PadImages
            PerspectiveTransform RGBToGrayscale RGBToHSV Resize SSIM ScaleAndTranslate SobelEdges
        """,
        "linalg": """
            Cholesky CholeskyInverse Det Eig Eigh Inv Lstsq LuFactor MatrixRank Norm Pinv Qr SVD Solve SolveTriangular
        """,
        "math": """
            CDist Erf Erfc Erfinv ExtractSequences FFT FFT2 IFFT2 IRFFT ISTFT InTopK Logdet Logsumexp RFFT Rsqrt STFT
            SegmentMax SegmentMin SegmentProd SegmentReduction SegmentSum TopK ViewAsComplex ViewAsReal
        """,
        "nn": """
            AdaptiveAveragePool AdaptiveMaxPool AveragePool BatchNorm BinaryCrossentropy CTCDecode CTCLoss
            CategoricalCrossentropy Celu Conv ConvTranspose DepthToSpace DepthwiseConv DotProductAttention Elu Fold
            Gelu Glu HardShrink HardSigmoid HardSilu HardTanh LayerNorm LeakyRelu LogSigmoid LogSoftmax MaxPool
            Moments MultiHot Normalize OneHot PSNR Polar RMSNorm Relu Relu6 Selu SeparableConv Sigmoid Silu SoftShrink
            Softmax Softplus Softsign SpaceToDepth SparseCategoricalCrossentropy SparsePlus SparseSigmoid Sparsemax
            Squareplus TanhShrink Threshold Unfold
        """,
        "numpy": """
            Abs Absolute Add All AllClose Amax Amin Angle Any Append Arange Arccos Arccosh Arcsin Arcsinh Arctan Arctan2
            Arctanh Argmax Argmin Argpartition Argsort Array ArraySplit Average Bincount BitwiseAnd BitwiseInvert
            BitwiseLeftShift BitwiseNot BitwiseOr BitwiseRightShift BitwiseXor BroadcastTo Cbrt Ceil Clip Concatenate
            Conj Conjugate Copy Corrcoef Correlate Cos Cosh CountNonzero Cross Cumprod Cumsum Deg2rad Diag Diagflat
            Diagonal Diff Digitize Divide DivideNoNan Dot Dsplit Dstack Einsum EmptyLike Equal Exp Exp2 ExpandDims
            Expm1 Fabs Flip Fliplr Flipud Floor FloorDivide Fmax Fmin Fmod Full FullLike Gcd Geomspace GetItem Greater
            GreaterEqual Heaviside Histogram Hsplit Hstack Hypot I0 Imag Inner IsIn Isclose Isfinite Isinf Isnan
            Isneginf Isposinf Isreal Kron Lcm Ldexp LeftShift Less LessEqual Linspace Log Log10 Log1p Log2 Logaddexp
            Logaddexp2 LogicalAnd LogicalNot LogicalOr LogicalXor Logspace Matmul Max Maximum Mean Median Meshgrid Min
            Minimum Mod Moveaxis Multiply NanToNum Nanargmax Nanargmin Nancumprod Nancumsum Nanmax Nanmean Nanmedian
            Nanmin Nanpercentile Nanprod Nanquantile Nanstd Nansum Nanvar Ndim Negative Nextafter Nonzero NotEqual
            OnesLike Outer Pad Percentile Power Prod Ptp Quantile Rad2deg Ravel Real Reciprocal Repeat Reshape
            RightShift Roll Rot90 Round SearchSorted Select Sign Signbit Sin Sinc Sinh Size Slogdet Sort Split Sqrt
            Square Squeeze Stack Std Subtract Sum Swapaxes Take TakeAlongAxis Tan Tanh Tensordot Tile Trace Transpose
            Trapezoid Tril Triu TrueDivide Trunc Unique UnravelIndex Vander Var Vdot View Vsplit Vstack Where
            ZerosLike
        """,
    }.items()
}

_CLASSES: Mapping[str, frozenset[str]] = {
    "keras": frozenset({"DTypePolicy", "FloatDTypePolicy", "Model", "Sequential"}),
    "keras.constraints": keras2.CONSTRAINTS,
    "keras.dtype_policies": _POLICIES,
    "keras.initializers": INITIALIZERS,
    "keras.layers": LAYERS,
    "keras.losses": _LOSSES,
    "keras.metrics": _METRICS,
    "keras.mixed_precision": _POLICIES | {"Policy"},
    "keras.models": keras2.MODELS,
    "keras.optimizers": _OPTIMIZERS,
    "keras.optimizers.schedules": keras2._SCHEDULES,
    "keras.quantizers": frozenset({"AbsMaxQuantizer"}),
    "keras.random": frozenset({"SeedGenerator"}),
    "keras.regularizers": keras2.REGULARIZERS,
    "keras.src.applications.convnext": frozenset({"LayerScale", "StochasticDepth"}),
    "keras.src.applications.inception_resnet_v2": frozenset({"CustomScaleLayer"}),
    "keras.src.models.functional": frozenset({"Functional"}),
    "keras.src.models.model": frozenset({"Model"}),
    "keras.src.models.sequential": frozenset({"Sequential"}),
    "keras.src.quantizers.quantizers": frozenset({"FakeQuantWithMinMaxVars"}),
    **OPERATIONS,
}
# Of .h5 files, whose layers have no module.
_WITHOUT_MODULE = frozenset().union(*(names for module, names in _CLASSES.items() if module not in OPERATIONS))
NAMES = KnownNames(
    classes=_CLASSES,
    classes_without_module=_WITHOUT_MODULE,
    functions={
        "builtins": ACTIVATION_FUNCTIONS | _METRIC_FUNCTIONS,
        "keras.activations": ACTIVATION_FUNCTIONS,
        "keras.losses": _LOSS_FUNCTIONS,
        "keras.metrics": _METRIC_FUNCTIONS,
        "keras.ops": ACTIVATION_FUNCTIONS | _ARITHMETIC,
    },
    functions_without_module=ACTIVATION_FUNCTIONS | _METRIC_FUNCTIONS,
    by_key={
        "activation": ACTIVATIONS,
        "initializer": INITIALIZERS,
        "regularizer": keras2.REGULARIZERS,
        "constraint": keras2.CONSTRAINTS,
        "fn": ACTIVATION_FUNCTIONS | _METRIC_FUNCTIONS,
    },
    only_with_module=frozenset().union(*OPERATIONS.values()) - _WITHOUT_MODULE,
)
